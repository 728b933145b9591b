//! Tables of osquery that some nodes are never asked, and whom a piece of SQL may reach.
//!
//! Which tables SQL reads is found out elsewhere; here is decided whether that is allowed for its target, and what a node is not
//! given although it stands in its config.

use serde::{Deserialize, Serialize};

use crate::node::NodeFacts;
use crate::target::Target;

/// Stands among denied tables for every automatic table of a config (`auto_table_construction`), whatever its name: it may read any
/// SQLite file of a node.
pub const AUTO_TABLES: &str = "auto_table_construction";

/// Tables that the nodes of a target are never asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDenial {
    /// The nodes.
    pub target: String,
    /// In lower case.
    pub tables: Vec<String>,
    /// Ends the sentence "The table … cannot be used here: …".
    pub reason: String,
}

impl TableDenial {
    /// Does it deny one of these tables?
    #[must_use]
    pub fn denies_any<'a>(&self, mut tables: impl Iterator<Item = &'a String>) -> bool {
        tables.any(|table| self.tables.contains(table))
    }

    /// Its target. One that cannot be read any more means every node: better too strict.
    #[must_use]
    pub fn nodes(&self) -> Target {
        Target::parse(&self.target).unwrap_or(Target::All)
    }
}

/// Could something with this target reach a node of another target? Yes, if a node that there is belongs to both, or if one that
/// carries no more than what the other target names would be chosen, since it may enroll at any time. So `server` does not reach
/// `laptop` (unless a node is both), while `not database` and the empty target do.
#[must_use]
pub fn may_reach<'a>(
    target: &Target,
    other: &Target,
    mut nodes: impl Iterator<Item = &'a NodeFacts>,
) -> bool {
    nodes.any(|node| target.matches(node) && other.matches(node))
        || newcomers(other).iter().any(|node| target.matches(node))
}

/// The platforms that a target may choose nodes of, among those given.
pub fn platforms_of<'a>(target: &Target, platforms: &[&'a str]) -> Vec<&'a str> {
    let possible = platforms
        .iter()
        .filter(|platform| may_be(target, platform).0);
    possible.copied().collect()
}

/// Can a node of this platform be chosen, and can one not be? Nothing is assumed about tags and names.
fn may_be(target: &Target, platform: &str) -> (bool, bool) {
    match target {
        Target::All => (true, false),
        Target::None => (false, true),
        Target::Tag(_) | Target::Host(_) => (true, true),
        Target::Platform(own) => {
            let is = own.eq_ignore_ascii_case(platform);
            (is, !is)
        }
        Target::Not(inner) => {
            let (can, cannot) = may_be(inner, platform);
            (cannot, can)
        }
        Target::And(all) => {
            let each: Vec<_> = all.iter().map(|one| may_be(one, platform)).collect();
            (each.iter().all(|one| one.0), each.iter().any(|one| one.1))
        }
        Target::Or(any) => {
            let each: Vec<_> = any.iter().map(|one| may_be(one, platform)).collect();
            (each.iter().any(|one| one.0), each.iter().all(|one| one.1))
        }
    }
}

/// The more tags a target names, the more combinations there are; beyond this only the fullest is looked at.
const MAX_NAMED: usize = 8;

/// Nodes as they might enroll that the target chooses: with some of the tags, platforms and names that it names, and nothing else.
fn newcomers(target: &Target) -> Vec<NodeFacts> {
    let (mut tags, mut platforms, mut hosts) =
        (Vec::new(), vec![String::new()], vec![String::new()]);
    named(target, &mut tags, &mut platforms, &mut hosts);
    tags.sort_unstable();
    tags.dedup();
    let combinations = if tags.len() > MAX_NAMED {
        1
    } else {
        1_u32 << tags.len()
    };
    platforms.extend(["linux", "darwin", "windows"].map(ToOwned::to_owned));
    let mut found = Vec::new();
    for chosen in 0..combinations {
        let own: Vec<String> = tags
            .iter()
            .enumerate()
            .filter(|(index, _)| tags.len() > MAX_NAMED || chosen >> index & 1 == 1)
            .map(|(_, tag)| tag.clone())
            .collect();
        for platform in &platforms {
            for host in &hosts {
                let node = NodeFacts {
                    hostname: host.clone(),
                    host_identifier: host.clone(),
                    platform: platform.clone(),
                    tags: own.clone(),
                    ..NodeFacts::default()
                };
                if target.matches(&node) {
                    found.push(node);
                }
            }
        }
    }
    found
}

fn named(
    target: &Target,
    tags: &mut Vec<String>,
    platforms: &mut Vec<String>,
    hosts: &mut Vec<String>,
) {
    match target {
        Target::All | Target::None => {}
        Target::Tag(tag) => tags.push(tag.to_lowercase()),
        Target::Platform(platform) => platforms.push(platform.to_lowercase()),
        Target::Host(pattern) => hosts.push(pattern.replace('*', "")),
        Target::Not(inner) => named(inner, tags, platforms, hosts),
        Target::And(parts) | Target::Or(parts) => {
            for part in parts {
                named(part, tags, platforms, hosts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(target: &str, other: &str, nodes: &[NodeFacts]) -> bool {
        let target = Target::parse(target).unwrap();
        may_reach(&target, &Target::parse(other).unwrap(), nodes.iter())
    }

    fn node(tags: &[&str]) -> NodeFacts {
        NodeFacts {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            platform: "linux".to_owned(),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn a_target_reaches_nodes_that_are_and_nodes_that_may_come() {
        for target in [
            "",
            "*",
            "laptop",
            "not server",
            "laptop or x",
            "platform:darwin",
            "LAPTOP and not x",
        ] {
            assert!(reaches(target, "laptop", &[]), "{target}");
        }
        for target in [
            "server",
            "server and prod",
            "not laptop",
            "none",
            "server and not laptop",
            "host:web-*",
        ] {
            assert!(!reaches(target, "laptop", &[]), "{target}");
        }
        assert!(reaches("server", "laptop", &[node(&["server", "laptop"])]));
        assert!(!reaches(
            "server and not laptop",
            "laptop",
            &[node(&["server", "laptop"])]
        ));
        assert!(reaches(
            "platform:darwin",
            "platform:darwin and not server",
            &[]
        ));
        assert!(!reaches("platform:linux", "platform:darwin", &[]));
        assert!(reaches("host:web-*", "host:web-1", &[]));
    }

    #[test]
    fn platforms_follow_from_the_expression() {
        let all = ["linux", "darwin", "windows"];
        let of = |text| platforms_of(&Target::parse(text).unwrap(), &all);
        assert_eq!(of("prod"), all);
        assert_eq!(of("prod and platform:linux"), ["linux"]);
        assert_eq!(of("not platform:windows"), ["linux", "darwin"]);
        assert_eq!(of("platform:linux or platform:darwin"), ["linux", "darwin"]);
        assert_eq!(of("not (prod and platform:linux)"), all);
        assert_eq!(of("none"), [""; 0]);
    }
}
