//! Where a finding is in its life.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a finding is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// Nobody has taken it up.
    Open,
    /// Somebody has; it goes on counting and tells nobody.
    Acknowledged,
    /// It is over; another match opens another finding.
    Resolved,
}

impl FindingState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 3] = [Self::Open, Self::Acknowledged, Self::Resolved];

    /// The word of pages and of the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// The state of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for FindingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        assert!(
            FindingState::ALL
                .iter()
                .all(|state| FindingState::parse(state.as_str()) == Some(*state))
        );
        assert_eq!(FindingState::parse(""), None);
    }
}
