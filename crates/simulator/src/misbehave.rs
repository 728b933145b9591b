//! The ways in which real nodes misbehave, and which nodes of a fleet do.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Something that real fleets do and a server must bear.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Misbehaviour {
    /// Raw bytes that are no UTF-8 in rows and messages, `\u0000` in messages and host details.
    Poison,
    /// Carves come backwards and each block twice (even nodes), or without their last block (odd nodes); with each block come some
    /// that no server may take.
    OddCarves,
    /// Carves are given up after half of their blocks, and never taken up again.
    FailedCarves,
    /// Each log post is made twice, milliseconds apart; only the second answer is seen.
    DoublePost,
    /// The clock is years ahead (even nodes) or in January 1970 (odd nodes). Certificates are still
    /// judged by the true time, or such a node could not connect at all.
    ClockSkew,
    /// The hardware UUID and serial of another node, with an osquery database of its own.
    Clone,
    /// The osquery database is wiped: another instance id, the key, the buffer and all counters are
    /// gone, and everything is `added` again.
    Wipe,
}

impl Misbehaviour {
    /// All misbehaviours.
    pub const ALL: [Misbehaviour; 7] = [
        Misbehaviour::Poison,
        Misbehaviour::OddCarves,
        Misbehaviour::FailedCarves,
        Misbehaviour::DoublePost,
        Misbehaviour::ClockSkew,
        Misbehaviour::Clone,
        Misbehaviour::Wipe,
    ];

    /// The word that commands use.
    pub fn word(self) -> &'static str {
        match self {
            Misbehaviour::Poison => "poison",
            Misbehaviour::OddCarves => "odd-carves",
            Misbehaviour::FailedCarves => "failed-carves",
            Misbehaviour::DoublePost => "double-post",
            Misbehaviour::ClockSkew => "clock-skew",
            Misbehaviour::Clone => "clone",
            Misbehaviour::Wipe => "wipe",
        }
    }
}

impl FromStr for Misbehaviour {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Misbehaviour::ALL
            .into_iter()
            .find(|misbehaviour| misbehaviour.word() == word)
            .ok_or_else(|| format!("no such misbehaviour: {word}"))
    }
}

/// How many seconds the clock of node `index` is wrong when it is `now`.
pub fn clock_error(index: usize, now: i64) -> i64 {
    const EIGHT_YEARS: i64 = 8 * 365 * 86_400;
    const TEN_DAYS: i64 = 10 * 86_400;
    if index.is_multiple_of(2) {
        EIGHT_YEARS
    } else {
        TEN_DAYS - now
    }
}

/// Whether node `index` is among the `share` (0 to 1) of nodes that show the `nth` of the misbehaviours
/// asked for. Each picks other nodes, evenly spread, and at least one of any fleet that is large enough.
pub fn is_chosen(index: usize, nth: usize, share: f64) -> bool {
    if share <= 0.0 {
        return false;
    }
    let every = (1.0 / share.min(1.0)).round().max(1.0) as usize;
    (index + nth).is_multiple_of(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_each_misbehaviour_picks_others() {
        let chosen = |nth| {
            (0..100)
                .filter(|&i| is_chosen(i, nth, 0.1))
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(1).len(), 10);
        assert!(chosen(1).iter().all(|i| !chosen(2).contains(i)));
        assert!((0..100).all(|i| !is_chosen(i, 0, 0.0)));
    }

    #[test]
    fn a_skewed_clock_is_years_ahead_or_in_1970() {
        let now = 1_790_000_000;
        assert!(now + clock_error(0, now) > now + 7 * 365 * 86_400);
        assert_eq!(now + clock_error(1, now), 864_000);
    }
}
