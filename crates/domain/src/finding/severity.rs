//! How bad a matter is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a matter is; the order is that of badness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// For a quiet hour.
    Low,
    /// For today.
    Medium,
    /// For now.
    High,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// All severities, the mildest first.
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    /// The word of forms and of the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == word)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_severities_ordered() {
        assert!(Severity::ALL.is_sorted());
        assert!(
            Severity::ALL
                .iter()
                .all(|severity| Severity::parse(severity.as_str()) == Some(*severity))
        );
        assert_eq!(Severity::parse("grave"), None);
    }
}
