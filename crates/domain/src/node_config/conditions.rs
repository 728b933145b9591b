//! osquery's own conditions of packs and queries, judged here as a node judges them, so that pages can say whom they mean.
//!
//! Facts: `osquery/config/packs.cpp::Pack::checkPlatform`, `checkVersion`, `getMachineShard`.

use sha1::{Digest as _, Sha1};

use super::{Pack, Query};
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

fn runs_on(platform: &str, version: &str, shard: Option<i16>, node: &NodeFacts) -> bool {
    takes_platform(platform, &node.platform)
        && takes_version(version, &node.osquery_version)
        && shard.is_none_or(|percent| in_shard(percent, &node.hostname))
}

impl Pack {
    /// Would a node that gets the pack run it, as far as can be told without its discovery?
    #[must_use]
    pub fn runs_on(&self, node: &NodeFacts) -> bool {
        runs_on(&self.platform, &self.version, self.shard, node)
    }
}

impl Query {
    /// Would a node that gets the query run it?
    #[must_use]
    pub fn runs_on(&self, node: &NodeFacts) -> bool {
        runs_on(&self.platform, &self.version, self.shard, node)
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
