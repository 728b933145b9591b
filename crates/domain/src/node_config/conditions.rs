//! osquery's own conditions of packs and queries, judged here as a node judges them, so that pages can say whom they mean.
//!
//! Facts: `osquery/config/packs.cpp::Pack::checkPlatform`, `checkVersion`, `getMachineShard`.

use sha1::{Digest as _, Sha1};

use crate::node::NodeFacts;
use crate::osquery::OsqueryVersion;

/// Does a shard of so many percent contain the host? By the first byte of its name's SHA-1.
///
/// osqueryd takes the name that the operating system gives it, which may be longer or shorter than the one in `system_info`.
#[must_use]
pub fn in_shard(percent: i16, hostname: &str) -> bool {
    let first = i32::from(Sha1::digest(hostname)[0]);
    first * 100 / 255 <= i32::from(percent)
}

/// Does a `platform` condition take in a node of this platform? A search in the text, so that lists with commas work. A node whose
/// platform is not known yet is taken in.
#[must_use]
pub fn takes_platform(condition: &str, platform: &str) -> bool {
    let has = |word: &str| condition.contains(word);
    condition.is_empty()
        || platform.is_empty()
        || has("any")
        || has("all")
        || has(platform)
        || (platform == "linux" && (has("ubuntu") || has("centos")))
        || (platform != "windows" && has("posix"))
}

/// Is an osquery of this version new enough? One whose version is not known yet is.
#[must_use]
pub fn takes_version(condition: &str, version: &str) -> bool {
    match (
        condition.parse::<OsqueryVersion>(),
        version.parse::<OsqueryVersion>(),
    ) {
        (Ok(least), Ok(version)) => version >= least,
        _ => true,
    }
}

/// The three conditions that a pack or a query may have.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// As in [`Pack`](super::Pack).
    pub platform: &'a str,
    /// As in [`Pack`](super::Pack).
    pub version: &'a str,
    /// As in [`Pack`](super::Pack).
    pub shard: Option<i16>,
}

impl Conditions<'_> {
    /// Is there any?
    #[must_use]
    pub fn are_any(&self) -> bool {
        !self.platform.is_empty() || !self.version.is_empty() || self.shard.is_some()
    }

    /// Would a node that gets the thing run it, as far as can be told without a pack's discovery?
    #[must_use]
    pub fn hold_on(&self, node: &NodeFacts) -> bool {
        takes_platform(self.platform, &node.platform)
            && takes_version(self.version, &node.osquery_version)
            && (self.shard).is_none_or(|percent| in_shard(percent, &node.hostname))
    }
}

/// What is wrong with a query's name on some osquery, as a sentence.
///
/// From 5.19 on osqueryd refuses names that collide with its own keys (`osquery/config/packs.cpp`); before, they spoil its stored rows.
#[must_use]
pub fn flaw_of_query_name(name: &str) -> Option<&'static str> {
    let reserved_prefix = ["query.", "cache.", "config_views."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let reserved_suffix = ["epoch", "counter"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    if reserved_prefix {
        Some(
            "osquery refuses names that begin with query., cache. or config_views. (from 5.19 on).",
        )
    } else if reserved_suffix {
        Some("osquery refuses names that end with epoch or counter (from 5.19 on).")
    } else {
        None
    }
}

/// What is odd about a query's name though osquery takes it.
#[must_use]
pub fn oddity_of_query_name(name: &str) -> Option<&'static str> {
    name.contains(':').then_some(
        "osqueryd keeps the names of denylisted queries with colons between: one that contains a colon is not found there again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_told_by_the_first_byte_of_the_names_hash() {
        // As sha1sum says: ba = 186, 186 * 100 / 255 = 72; 3b = 59 gives 23; 4b = 75 gives 29.
        for (host, least) in [("web-1", 72), ("web-2", 23), ("db-1", 29)] {
            assert!(
                in_shard(least, host) && !in_shard(least - 1, host),
                "{host}"
            );
        }
        let hosts: Vec<String> = (0..2_000).map(|number| format!("web-{number}")).collect();
        let share = |percent| hosts.iter().filter(|host| in_shard(percent, host)).count();
        assert_eq!(share(100), 2_000, "100 is everybody");
        assert!((150..=270).contains(&share(10)), "{}", share(10));
        for (smaller, larger) in [(1, 2), (10, 50), (50, 99)] {
            for host in &hosts {
                assert!(
                    !in_shard(smaller, host) || in_shard(larger, host),
                    "a larger shard contains the smaller one"
                );
            }
        }
    }

    #[test]
    fn platforms_are_searched_in_the_text_as_osquery_does() {
        let cases = [
            ("", "linux", true),
            ("linux,darwin", "darwin", true),
            ("linux,darwin", "windows", false),
            ("all", "windows", true),
            ("any", "freebsd", true),
            ("ubuntu", "linux", true),
            ("centos", "linux", true),
            ("ubuntu", "darwin", false),
            ("posix", "freebsd", true),
            ("posix", "windows", false),
            ("gentoo", "linux", false),
            ("windows", "", true),
        ];
        for (condition, platform, expected) in cases {
            assert_eq!(
                takes_platform(condition, platform),
                expected,
                "{condition} on {platform}"
            );
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (condition, version, expected) in [
            ("", "2.11.2", true),
            ("5.2.0", "5.23.1", true),
            ("5.24", "5.23.1", false),
            ("1.4.5", "4.9.0", true),
            ("5.0.0", "", true),
        ] {
            assert_eq!(
                takes_version(condition, version),
                expected,
                "{condition} on {version}"
            );
        }
    }

    #[test]
    fn names_that_osquery_refuses_are_told_from_odd_ones() {
        for name in [
            "query.x",
            "cache.x",
            "config_views.x",
            "my_epoch",
            "counter",
            "x.counter",
        ] {
            assert!(flaw_of_query_name(name).is_some(), "{name}");
        }
        for name in [
            "usb",
            "my query. x",
            "epoch_of",
            "sadmind/iis_worm",
            "mithra`s_rootkit",
            "a b ",
        ] {
            assert_eq!(flaw_of_query_name(name), None, "{name}");
        }
        assert!(oddity_of_query_name("a:b").is_some() && oddity_of_query_name("a b").is_none());
    }
}
