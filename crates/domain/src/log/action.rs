//! What a row says happened to it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The action of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The row is new in the result of a differential query.
    Added,
    /// The row is gone from it.
    Removed,
    /// The row is part of a snapshot.
    Snapshot,
    /// A fact that Ostiary itself noted; no node sends this.
    Triggered,
}

impl Action {
    /// All actions, for forms and documentation.
    pub const ALL: [Self; 4] = [Self::Added, Self::Removed, Self::Snapshot, Self::Triggered];

    /// The word of the wire, of rules and of the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Snapshot => "snapshot",
            Self::Triggered => "triggered",
        }
    }

    /// The action of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
