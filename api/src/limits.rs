//! How often who may try: token buckets in memory, bounded in number.
//!
//! Behind one address sits a whole office. So what fails is counted apart from what succeeds, and a secret that Postgres has called
//! good is let through however much else fails at its address; a machine that loops is counted by itself.
//!
//! Own buckets, because `governor` (looked at in version 0.10) neither bounds the number of its keys nor lets a failure cost more
//! afterwards than the attempt did before.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Settings of one kind of bucket.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many at once.
    pub burst: u32,
    /// So many a second in the long run; 0 switches the limit off.
    pub per_second: f64,
}

/// Settings `[api.limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitOptions {
    /// Enrollments by good secrets from one address (of IPv6 from one /64).
    pub enroll_per_address: Rate,
    /// Enrollments by one secret, wherever they come from.
    pub enroll_per_secret: Rate,
    /// Enrollments of one machine, as it names itself, from one address. A refusal counts as five.
    pub enroll_per_host: Rate,
    /// Failed enrollments (bad secrets, bodies that cannot be read) from one address. Beyond it only secrets that are known to be good
    /// are looked at.
    pub enroll_failures_per_address: Rate,
    /// Keys that Postgres does not know, from one address: beyond it the answer is "busy", unlooked.
    pub unknown_keys_per_address: Rate,
    /// Addresses, hosts or secrets that are counted each by itself; further ones share one count.
    pub max_counted: usize,
}

impl Default for LimitOptions {
    fn default() -> Self {
        let rate = |burst, per_second| Rate { burst, per_second };
        Self {
            enroll_per_address: rate(2_000, 100.0),
            enroll_per_secret: rate(5_000, 200.0),
            enroll_per_host: rate(20, 0.2),
            enroll_failures_per_address: rate(60, 1.0),
            unknown_keys_per_address: rate(100, 10.0),
            max_counted: 50_000,
        }
    }
}

/// An address as limits see it: of IPv6 the /64, of which any one machine may have all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(Option<IpAddr>);

impl Network {
    pub(crate) fn of(ip: Option<IpAddr>) -> Self {
        Self(ip.map(|ip| match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            v4 => v4,
        }))
    }
}

/// Buckets by key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    max: usize,
    levels: Mutex<Levels<K>>,
}

#[derive(Debug)]
struct Levels<K> {
    by_key: HashMap<K, Level>,
    /// Of all keys for which there is no room.
    others: Level,
    swept_at: Instant,
}

/// How much of a bucket is used up.
#[derive(Debug, Clone, Copy)]
struct Level {
    used: f64,
    at: Instant,
}

impl Level {
    fn now(self, rate: Rate, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second;
        (self.used - refilled).max(0.0)
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Looking for room costs a walk over all keys, so it is done this often at most.
    const SWEEP_EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn new(rate: Rate, max: usize) -> Self {
        let now = Instant::now();
        Self {
            rate,
            max: max.max(1),
            levels: Mutex::new(Levels {
                by_key: HashMap::new(),
                others: Level { used: 0.0, at: now },
                swept_at: now,
            }),
        }
    }

    /// Is there anything left for this key?
    pub(crate) fn has_room(&self, key: &K, now: Instant) -> bool {
        if self.rate.per_second <= 0.0 {
            return true;
        }
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let level = match levels.by_key.get(key) {
            Some(level) => *level,
            None if levels.by_key.len() >= self.max => levels.others,
            None => return true,
        };
        level.now(self.rate, now) + 1.0 <= f64::from(self.rate.burst)
    }

    /// Takes so much, if there is anything left; it may cost more than is left, which is then owed. Says whether there was.
    pub(crate) fn take(&self, key: &K, cost: u32, now: Instant) -> bool {
        if self.rate.per_second <= 0.0 {
            return true;
        }
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if !levels.by_key.contains_key(key) && levels.by_key.len() >= self.max {
            self.make_room(&mut levels, now);
        }
        let burst = f64::from(self.rate.burst);
        let fresh = Level { used: 0.0, at: now };
        let level = if levels.by_key.contains_key(key) || levels.by_key.len() < self.max {
            levels.by_key.entry(key.clone()).or_insert(fresh)
        } else {
            &mut levels.others
        };
        let used = level.now(self.rate, now);
        let had_room = used + 1.0 <= burst;
        *level = Level {
            used: if had_room {
                (used + f64::from(cost)).min(2.0 * burst)
            } else {
                used
            },
            at: now,
        };
        had_room
    }

    /// Forgets keys whose buckets are full again.
    fn make_room(&self, levels: &mut Levels<K>, now: Instant) {
        if now.saturating_duration_since(levels.swept_at) < Self::SWEEP_EVERY {
            return;
        }
        levels.swept_at = now;
        let rate = self.rate;
        levels.by_key.retain(|_, level| level.now(rate, now) > 0.0);
    }
}

/// The HMAC of an enroll secret.
pub(crate) type SecretHmac = [u8; 32];

/// All limits on enrollments.
#[derive(Debug)]
pub(crate) struct EnrollLimits {
    per_address: Buckets<Network>,
    per_secret: Buckets<SecretHmac>,
    per_host: Buckets<u64>,
    failures: Buckets<Network>,
    good: Mutex<HashMap<SecretHmac, ()>>,
    hasher: RandomState,
}

/// One attempt to enroll.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) network: Network,
    pub(crate) hmac: SecretHmac,
    pub(crate) host: u64,
}

impl EnrollLimits {
    /// What a refusal of a machine with a good secret costs it.
    const REFUSAL: u32 = 5;
    /// An installation has a handful of secrets.
    const MAX_GOOD: usize = 10_000;

    pub(crate) fn new(options: &LimitOptions) -> Self {
        let max = options.max_counted;
        Self {
            per_address: Buckets::new(options.enroll_per_address, max),
            per_secret: Buckets::new(options.enroll_per_secret, max),
            per_host: Buckets::new(options.enroll_per_host, max),
            failures: Buckets::new(options.enroll_failures_per_address, max),
            good: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// An attempt from there by this secret of a machine that names itself so.
    pub(crate) fn attempt(&self, network: Network, hmac: SecretHmac, host: impl Hash) -> Attempt {
        Attempt {
            network,
            hmac,
            host: self.hasher.hash_one((network, host)),
        }
    }

    /// May this be tried? Asked before Postgres is.
    pub(crate) fn admits(&self, attempt: &Attempt, now: Instant) -> bool {
        let is_good = self.is_good(&attempt.hmac);
        let refused_by = if !is_good && !self.failures.has_room(&attempt.network, now) {
            "failures"
        } else if !self.per_host.take(&attempt.host, 1, now) {
            "host"
        } else if is_good && !self.per_address.take(&attempt.network, 1, now) {
            "address"
        } else if is_good && !self.per_secret.take(&attempt.hmac, 1, now) {
            "secret"
        } else {
            return true;
        };
        metrics::counter!("ostiary_enroll_limited_total", "by" => refused_by).increment(1);
        false
    }

    /// The attempt told nothing that could have succeeded.
    pub(crate) fn failed(&self, network: Network, now: Instant) {
        metrics::counter!("ostiary_enroll_failures_total").increment(1);
        self.failures.take(&network, 1, now);
    }

    /// The machine was refused although its secret is good.
    pub(crate) fn refused(&self, attempt: &Attempt, now: Instant) {
        self.per_host.take(&attempt.host, Self::REFUSAL, now);
    }

    /// Postgres calls this secret good, or not (any more).
    pub(crate) fn learn(&self, hmac: SecretHmac, good: bool) {
        let mut known = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if !good {
            known.remove(&hmac);
        } else if known.len() < Self::MAX_GOOD {
            known.insert(hmac, ());
        }
    }

    fn is_good(&self, hmac: &SecretHmac) -> bool {
        self.good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(hmac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32, per_second: f64) -> Rate {
        Rate { burst, per_second }
    }

    fn ip(text: &str) -> Network {
        Network::of(Some(text.parse().unwrap()))
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let buckets = Buckets::new(rate(3, 2.0), 10);
        let start = Instant::now();
        let taken: Vec<bool> = (0..5).map(|_| buckets.take(&1, 1, start)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(!buckets.has_room(&1, start) && buckets.has_room(&2, start));
        let later = start + Duration::from_millis(600);
        assert!(buckets.take(&1, 5, later), "what is owed is paid later");
        assert!(!buckets.has_room(&1, later + Duration::from_secs(1)));
        assert!(buckets.has_room(&1, later + Duration::from_secs(3)));
        let off = Buckets::new(rate(1, 0.0), 10);
        assert!((0..1000).all(|_| off.take(&1, 9, start)));
    }

    #[test]
    fn the_number_of_buckets_is_bounded_and_full_ones_make_room() {
        let buckets = Buckets::new(rate(2, 1.0), 100);
        let start = Instant::now();
        for key in 0..10_000 {
            buckets.take(&key, 1, start);
        }
        assert_eq!(buckets.levels.lock().unwrap().by_key.len(), 100);
        assert!(buckets.has_room(&5, start), "known before");
        assert!(!buckets.has_room(&20_000, start), "all others share one");
        let later = start + Duration::from_secs(5);
        assert!(buckets.take(&20_000, 1, later));
        assert_eq!(buckets.levels.lock().unwrap().by_key.len(), 1);
    }

    #[test]
    fn of_ipv6_a_machine_may_have_a_whole_64() {
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:2"));
        assert_ne!(ip("2001:db8:0:1::1"), ip("2001:db8::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
        assert_ne!(ip("192.0.2.2"), ip("192.0.2.1"));
    }

    #[test]
    fn one_bad_host_does_not_lock_its_office() {
        let limits = EnrollLimits::new(&LimitOptions {
            enroll_failures_per_address: rate(10, 0.1),
            enroll_per_host: rate(6, 0.1),
            ..LimitOptions::default()
        });
        let (office, good, now) = (ip("192.0.2.1"), [7; 32], Instant::now());
        limits.learn(good, true);
        let mut admitted = 0;
        for guess in 0..200_u8 {
            let guess = limits.attempt(office, [guess; 32], ("bad", guess));
            if guess.hmac != good && limits.admits(&guess, now) {
                limits.failed(office, now);
                admitted += 1;
            }
        }
        assert_eq!(admitted, 10);
        // One more, with the good secret, in a loop.
        let looping = limits.attempt(office, good, "looping");
        let admitted = (0..100)
            .filter(|_| {
                let admitted = limits.admits(&looping, now);
                limits.refused(&looping, now);
                admitted
            })
            .count();
        assert!(admitted <= 2, "{admitted}");
        for host in 0..500 {
            let laptop = limits.attempt(office, good, ("laptop", host));
            assert!(limits.admits(&laptop, now), "laptop {host}");
        }
        limits.learn(good, false);
        assert!(!limits.admits(&limits.attempt(office, good, "late"), now));
    }

    #[test]
    fn one_secret_and_one_address_have_their_limits() {
        let limits = EnrollLimits::new(&LimitOptions {
            enroll_per_address: rate(10, 1.0),
            enroll_per_secret: rate(15, 1.0),
            ..LimitOptions::default()
        });
        let (secret, now) = ([7; 32], Instant::now());
        limits.learn(secret, true);
        let from = |address: &str, hosts: std::ops::Range<u32>| {
            hosts
                .filter(|host| {
                    let attempt = limits.attempt(ip(address), secret, host);
                    limits.admits(&attempt, now)
                })
                .count()
        };
        assert_eq!(from("192.0.2.1", 0..20), 10);
        assert_eq!(from("192.0.2.2", 20..40), 5);
    }
}
