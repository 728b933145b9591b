//! When a scheduled query runs: its splayed interval, and every second that it divides.

use std::collections::BTreeMap;

use rand::Rng;

/// How intervals are compressed, so that a demonstration shows life in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Tempo {
    /// Intervals are multiplied by this.
    pub scale: f64,
    /// No interval is longer than this (seconds).
    pub max_interval: Option<u64>,
}

impl Default for Tempo {
    fn default() -> Self {
        Tempo {
            scale: 1.0,
            max_interval: None,
        }
    }
}

impl Tempo {
    /// The interval in force: at least one second.
    pub fn interval(self, configured: u64) -> u64 {
        let scaled = (configured as f64 * self.scale).round() as u64;
        scaled.min(self.max_interval.unwrap_or(u64::MAX)).max(1)
    }
}

/// The range of splayed intervals: ± `percent` of the interval, rounded down; none below 10 s.
/// A percentage of 1 or less counts as 10.
pub fn splay_range(interval: u64, percent: u64) -> std::ops::RangeInclusive<u64> {
    let percent = if percent <= 1 { 10 } else { percent.min(100) };
    let splay = if interval < 10 {
        0
    } else {
        interval * percent / 100
    };
    (interval - splay).max(1)..=interval + splay
}

/// The splayed interval under a bare query name: chosen once, kept while the interval stays the same.
pub fn splayed_interval(
    remembered: &mut BTreeMap<String, (u64, u64)>,
    bare_name: &str,
    interval: u64,
    percent: u64,
    dice: &mut impl Rng,
) -> u64 {
    match remembered.get(bare_name) {
        Some(&(known, splayed)) if known == interval => splayed,
        _ => {
            let splayed = dice.random_range(splay_range(interval, percent));
            remembered.insert(bare_name.to_owned(), (interval, splayed));
            splayed
        }
    }
}

/// Whether a query with this splayed interval runs in this second of the node's clock.
pub fn is_due(second: i64, splayed: u64) -> bool {
    second.rem_euclid(i64::try_from(splayed).unwrap_or(i64::MAX)) == 0
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_splay_is_a_tenth_rounded_down() {
        assert_eq!(splay_range(9, 10), 9..=9);
        assert_eq!(splay_range(10, 10), 9..=11);
        assert_eq!(splay_range(60, 10), 54..=66);
        assert_eq!(splay_range(3600, 1), 3240..=3960);
    }

    #[test]
    fn a_splay_is_remembered_until_the_interval_changes() {
        let mut remembered = BTreeMap::new();
        let mut dice = StdRng::seed_from_u64(1);
        let first = splayed_interval(&mut remembered, "q", 3600, 10, &mut dice);
        for _ in 0..20 {
            assert_eq!(
                splayed_interval(&mut remembered, "q", 3600, 10, &mut dice),
                first
            );
        }
        let other = splayed_interval(&mut remembered, "q", 60, 10, &mut dice);
        assert!((54..=66).contains(&other));
    }

    #[test]
    fn a_query_runs_in_the_seconds_that_its_interval_divides() {
        let runs: Vec<i64> = (1000..1100).filter(|&second| is_due(second, 33)).collect();
        assert_eq!(runs, [1023, 1056, 1089]);
    }

    #[test]
    fn tempo_compresses_but_never_below_a_second() {
        let tempo = Tempo {
            scale: 0.01,
            max_interval: Some(20),
        };
        assert_eq!(tempo.interval(3600), 20);
        assert_eq!(tempo.interval(300), 3);
        assert_eq!(tempo.interval(10), 1);
        assert_eq!(Tempo::default().interval(3600), 3600);
    }
}
