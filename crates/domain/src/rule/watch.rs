//! What a rule waits for: one row, rows that hold, rows that are missing, or a number of them.
//!
//! | watch | a finding opens | it recovers |
//! |---|---|---|
//! | [`Drift`](Watch::Drift) | when a row that matches comes or goes | by people only |
//! | [`Present`](Watch::Present) | when a row that matches begins to hold on a node | when no such row is present any more |
//! | [`Absence`](Watch::Absence) | when a set comes without a row that matches | when one with such a row comes |
//! | [`Times`](Watch::Times) | when rows matched so often on one node within a span | by people only |
//! | [`Nodes`](Watch::Nodes) | when rows matched on so many nodes within a span | by people only |
//! | [`FirstSeen`](Watch::FirstSeen) | when a value comes that no node had before | by people only |
//! | [`Rare`](Watch::Rare) | when a value comes that at most so many nodes have, this one included | by people only |
//!
//! **Entities.** A finding is about an entity, the rule's entity columns. Drift, present rows and rarity take the whole row where the
//! rule names none. Counts then take all rows that match together, since whole rows seldom repeat; absence has no row, so no entity.
//!
//! **Time.** Counts within a span go by when events happened, so a laptop that comes back tells of one span and not of one burst;
//! what is late for the rule does not count.
//!
//! **What a rule cannot know.** Present rows are not kept of evented tables nor of differential queries without removals, so nothing
//! there recovers. Absence is judged on whole sets only: an empty set that comes one row a line says nothing at all, and a set whose
//! lines are spread over two posts is judged by its first part. Rarity counts a value on at most [`COUNTED_NODES`] nodes exactly;
//! a value that reached more is common for good. It is learned from the present rows when the rule is made or changed; of evented
//! tables it knows only what came since.

/// So many nodes of a value are kept at most: a value on more is common, whatever happens to them.
pub const COUNTED_NODES: u32 = 1_000;

/// The longest span of a count, in seconds: 30 days.
pub const LONGEST_SPAN: u32 = 30 * 86_400;

/// What a rule waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// Rows that come or go.
    #[default]
    Drift,
    /// Rows that hold.
    Present,
    /// Rows that are missing.
    Absence,
    /// So many matches on one node within a span.
    Times {
        /// How many, at least 2.
        times: u32,
        /// In which time, in seconds.
        seconds: u32,
    },
    /// Matches on so many nodes within a span.
    Nodes {
        /// How many, at least 2.
        nodes: u32,
        /// In which time, in seconds.
        seconds: u32,
    },
    /// Values that no node had before.
    FirstSeen,
    /// Values on at most so many nodes.
    Rare {
        /// How many, at least 1.
        nodes: u32,
    },
}

/// Why a watch cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// There is no such word.
    #[error("there is no watch {0:?}")]
    Unknown(String),
    /// A number that is missing or out of bounds.
    #[error("a number from {0} to {1} is needed")]
    Number(u32, u32),
    /// A span that is missing or out of bounds.
    #[error("a span from 1 to {LONGEST_SPAN} seconds is needed")]
    Span,
    /// Absence of which rows?
    #[error("a rule on missing rows has to name its query, by \"query_name equal\" or \"in\"")]
    NoQuery,
}

/// A watch with its word and what forms say.
#[derive(Debug, Clone, Copy)]
pub struct WatchInfo {
    /// The word of forms and of the database.
    pub name: &'static str,
    /// How people say it.
    pub label: &'static str,
    /// It has a number.
    pub counts: bool,
    /// It has a span.
    pub has_span: bool,
}

const fn info(name: &'static str, label: &'static str, counts: bool, has_span: bool) -> WatchInfo {
    WatchInfo {
        name,
        label,
        counts,
        has_span,
    }
}

/// All watches, in the order of forms.
pub const WATCHES: [WatchInfo; 7] = [
    info("drift", "a row comes or goes", false, false),
    info(
        "present",
        "a row holds; the finding resolves itself when it goes",
        false,
        false,
    ),
    info("absence", "no row of the query matches", false, false),
    info("times", "rows match so often on one node", true, true),
    info("nodes", "rows match on so many nodes", true, true),
    info(
        "first_seen",
        "a value that no node had before",
        false,
        false,
    ),
    info("rare", "a value that few nodes have", true, false),
];

impl Watch {
    /// Reads a watch from its word, its number and its span in seconds; what the watch does not have is passed over.
    ///
    /// # Errors
    /// No such watch, or numbers that cannot be meant.
    pub fn of(word: &str, count: Option<u32>, seconds: Option<u32>) -> Result<Self, WatchError> {
        let number = |least: u32| {
            count
                .filter(|count| (least..=COUNTED_NODES / 2).contains(count))
                .ok_or(WatchError::Number(least, COUNTED_NODES / 2))
        };
        let span = || {
            seconds
                .filter(|seconds| (1..=LONGEST_SPAN).contains(seconds))
                .ok_or(WatchError::Span)
        };
        Ok(match word {
            "drift" => Self::Drift,
            "present" => Self::Present,
            "absence" => Self::Absence,
            "times" => Self::Times {
                times: number(2)?,
                seconds: span()?,
            },
            "nodes" => Self::Nodes {
                nodes: number(2)?,
                seconds: span()?,
            },
            "first_seen" => Self::FirstSeen,
            "rare" => Self::Rare { nodes: number(1)? },
            other => return Err(WatchError::Unknown(other.to_owned())),
        })
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Present => "present",
            Self::Absence => "absence",
            Self::Times { .. } => "times",
            Self::Nodes { .. } => "nodes",
            Self::FirstSeen => "first_seen",
            Self::Rare { .. } => "rare",
        }
    }

    /// Its number, if it has one.
    #[must_use]
    pub fn count(self) -> Option<u32> {
        match self {
            Self::Times { times, .. } => Some(times),
            Self::Nodes { nodes, .. } | Self::Rare { nodes } => Some(nodes),
            _ => None,
        }
    }

    /// Its span in seconds, if it has one.
    #[must_use]
    pub fn seconds(self) -> Option<u32> {
        match self {
            Self::Times { seconds, .. } | Self::Nodes { seconds, .. } => Some(seconds),
            _ => None,
        }
    }

    /// Findings open by what the present rows of a query hold, and recover by it.
    #[must_use]
    pub fn is_of_present_rows(self) -> bool {
        matches!(self, Self::Present | Self::Absence)
    }

    /// It has to know what was there before.
    #[must_use]
    pub fn is_rarity(self) -> bool {
        matches!(self, Self::FirstSeen | Self::Rare { .. })
    }

    /// Without entity columns, all rows that match are one matter.
    #[must_use]
    pub fn counts_together(self) -> bool {
        matches!(self, Self::Times { .. } | Self::Nodes { .. })
    }

    /// A new or changed rule has to look at the present rows once.
    #[must_use]
    pub fn studies(self) -> bool {
        self.is_of_present_rows() || self.is_rarity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_with_their_numbers() {
        for known in WATCHES {
            let watch = Watch::of(known.name, Some(5), Some(600)).unwrap();
            assert_eq!(watch.as_str(), known.name);
            assert_eq!(
                (watch.count().is_some(), watch.seconds().is_some()),
                (known.counts, known.has_span)
            );
            assert_eq!(
                Watch::of(watch.as_str(), watch.count(), watch.seconds()),
                Ok(watch)
            );
        }
    }

    #[test]
    fn numbers_that_cannot_be_meant_are_refused() {
        let refused =
            |word, count, seconds| Watch::of(word, count, seconds).unwrap_err().to_string();
        assert_eq!(
            refused("times", Some(1), Some(60)),
            "a number from 2 to 500 is needed"
        );
        assert_eq!(
            refused("nodes", Some(2), None),
            "a span from 1 to 2592000 seconds is needed"
        );
        assert_eq!(
            refused("rare", Some(501), None),
            "a number from 1 to 500 is needed"
        );
        assert_eq!(
            refused("sometimes", None, None),
            "there is no watch \"sometimes\""
        );
    }
}
