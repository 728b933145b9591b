//! May this carve begin?

use chrono::TimeDelta;
use serde::Deserialize;

use super::Shape;
use crate::node::NodeFacts;
use crate::osquery::CarveStart;
use crate::table_denial::TableDenial;
use crate::target::Target;

/// Settings `[carves]`, read alike by all three processes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarveOptions {
    /// Are carves taken at all?
    pub enabled: bool,
    /// Tag expression: whose files may be collected.
    pub target: String,
    /// Largest carve in bytes.
    pub max_carve_bytes: u64,
    /// Largest block in bytes (`--carver_block_size` of the nodes).
    pub max_block_bytes: u64,
    /// Carves that one node may have in Postgres: under way, or whole and not yet stored.
    pub open_per_node: u32,
    /// Carves that all nodes together may have there: this bounds what the blocks take.
    pub open_in_all: u32,
    /// Bytes that one node may announce in 24 hours.
    pub node_bytes_a_day: u64,
    /// A carve of which no block has come for this long is given up, in minutes.
    pub timeout_minutes: i64,
    /// Carves are deleted after this many days.
    pub keep_days: i64,
}

impl CarveOptions {
    /// Which nodes; a text that is no expression (checked at the start of the processes) chooses none.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::parse(&self.target).unwrap_or(Target::None)
    }

    /// A carve of which no block has come for this long is given up.
    #[must_use]
    pub fn timeout(&self) -> TimeDelta {
        TimeDelta::try_minutes(self.timeout_minutes.max(1)).unwrap_or(TimeDelta::MAX)
    }

    /// A carve is deleted this long after it began.
    #[must_use]
    pub fn keep(&self) -> TimeDelta {
        TimeDelta::try_days(self.keep_days.max(1)).unwrap_or(TimeDelta::MAX)
    }
}

impl Default for CarveOptions {
    /// Off, and as `deploy/settings.default.toml` says.
    fn default() -> Self {
        Self {
            enabled: false,
            target: "*".to_owned(),
            max_carve_bytes: 256 << 20,
            max_block_bytes: 8 << 20,
            open_per_node: 3,
            open_in_all: 20,
            node_bytes_a_day: 2 << 30,
            timeout_minutes: 180,
            keep_days: 30,
        }
    }
}

/// osquery's table of carves: nodes that are denied it are not collected from either, however a carve began.
const TABLE: &str = "carves";

/// Why no files of this node are collected, as a sentence for people; `None` if they may be.
#[must_use]
pub fn why_not(
    options: &CarveOptions,
    denials: &[TableDenial],
    node: &NodeFacts,
) -> Option<String> {
    let table = TABLE.to_owned();
    if !options.enabled {
        Some("Carves are switched off ([carves] enabled in the settings).".to_owned())
    } else if !options.target().matches(node) {
        let target = &options.target;
        Some(format!(
            "It is none of the nodes whose files may be collected: {target}"
        ))
    } else {
        denials
            .iter()
            .find(|denial| {
                denial.denies_any(std::iter::once(&table)) && denial.nodes().matches(node)
            })
            .map(|denial| format!("It is denied the table carves: {}", denial.reason))
    }
}

/// What is under way when a carve is to begin, without that carve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CarveUse {
    /// Carves of this node.
    pub open_of_node: u32,
    /// Carves of all nodes.
    pub open_in_all: u32,
    /// Bytes that this node has announced within 24 hours.
    pub bytes_of_day: u64,
}

/// Why a carve does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Carves are switched off.
    #[error("carves are switched off")]
    Off,
    /// Not from this node.
    #[error("no files are collected from this node")]
    NotThisNode,
    /// The announced numbers do not fit each other.
    #[error("block_count, block_size and carve_size do not fit each other")]
    Numbers,
    /// The same carve was begun with other numbers, or has ended badly.
    #[error("this carve was begun otherwise, or has ended")]
    OtherCarve,
    /// The archive is too large.
    #[error("the carve is too large")]
    TooLarge,
    /// The blocks are too large.
    #[error("the blocks are too large")]
    BlocksTooLarge,
    /// The node has enough under way.
    #[error("too many carves of this node are under way")]
    TooManyOfNode,
    /// All together have enough under way.
    #[error("too many carves are under way")]
    TooMany,
    /// The node has sent enough for a day.
    #[error("this node has collected enough for a day")]
    EnoughForToday,
}

/// Why a block is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockRefusal {
    /// Nobody was given this session, or its carve is gone.
    #[error("this session is unknown")]
    UnknownSession,
    /// The session was given to another node than the one that sends.
    #[error("this session is another node's")]
    ForeignSession,
    /// The carve was given up, or failed.
    #[error("this carve has ended")]
    Ended,
    /// The carve has no such block.
    #[error("this carve has no such block")]
    NoSuchBlock,
    /// The block is longer or shorter than was announced.
    #[error("the block has not the announced length")]
    WrongLength,
    /// The block came before, with other bytes.
    #[error("the block came before, with other bytes")]
    OtherBytes,
}

/// Decides about what needs no look into the store when `usage` is `None`, and about everything else.
///
/// # Errors
/// Why not.
pub fn decide(
    options: &CarveOptions,
    node: &NodeFacts,
    start: &CarveStart,
    usage: Option<&CarveUse>,
) -> Result<Shape, Refusal> {
    if !options.enabled {
        return Err(Refusal::Off);
    }
    if !options.target().matches(node) {
        return Err(Refusal::NotThisNode);
    }
    let shape = Shape::of(start).ok_or(Refusal::Numbers)?;
    if shape.carve_size() > options.max_carve_bytes {
        return Err(Refusal::TooLarge);
    }
    if u64::from(shape.block_size()) > options.max_block_bytes {
        return Err(Refusal::BlocksTooLarge);
    }
    let Some(usage) = usage else {
        return Ok(shape);
    };
    if usage.open_of_node >= options.open_per_node {
        Err(Refusal::TooManyOfNode)
    } else if usage.open_in_all >= options.open_in_all {
        Err(Refusal::TooMany)
    } else if usage.bytes_of_day.saturating_add(shape.carve_size()) > options.node_bytes_a_day {
        Err(Refusal::EnoughForToday)
    } else {
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CarveOptions {
        CarveOptions {
            enabled: true,
            target: "not laptop".into(),
            max_carve_bytes: 1000,
            max_block_bytes: 100,
            open_per_node: 2,
            open_in_all: 5,
            node_bytes_a_day: 3000,
            timeout_minutes: 60,
            keep_days: 30,
        }
    }

    fn start(block_count: u64, block_size: u64, carve_size: u64) -> CarveStart {
        CarveStart {
            node_key: "K".into(),
            carve_id: "c".into(),
            request_id: String::new(),
            block_count,
            block_size,
            carve_size,
        }
    }

    #[test]
    fn a_carve_begins_only_within_every_limit() {
        let node = NodeFacts::default();
        let laptop = NodeFacts {
            tags: vec!["laptop".into()],
            ..NodeFacts::default()
        };
        let off = CarveOptions {
            enabled: false,
            ..options()
        };
        let unreadable = CarveOptions {
            target: "and and".into(),
            ..options()
        };
        let fine = start(10, 100, 1000);
        let decided = |options: &CarveOptions, node, start: &CarveStart| {
            decide(options, node, start, None).map(|shape| shape.block_count())
        };
        assert_eq!(decided(&options(), &node, &fine), Ok(10));
        assert_eq!(decided(&off, &node, &fine), Err(Refusal::Off));
        assert_eq!(
            decided(&options(), &laptop, &fine),
            Err(Refusal::NotThisNode)
        );
        assert_eq!(
            decided(&unreadable, &node, &fine),
            Err(Refusal::NotThisNode)
        );
        assert_eq!(
            decided(&options(), &node, &start(0, 100, 0)),
            Err(Refusal::Numbers)
        );
        assert_eq!(
            decided(&options(), &node, &start(11, 100, 1001)),
            Err(Refusal::TooLarge)
        );
        assert_eq!(
            decided(&options(), &node, &start(1, 101, 50)),
            Err(Refusal::BlocksTooLarge)
        );
    }

    #[test]
    fn a_node_that_is_denied_the_table_is_not_collected_from() {
        let denial = |tables: &str| TableDenial {
            target: "laptop".into(),
            tables: vec![tables.into()],
            reason: "private.".into(),
        };
        let all = CarveOptions {
            target: "*".into(),
            ..options()
        };
        let laptop = NodeFacts {
            tags: vec!["Laptop".into()],
            ..NodeFacts::default()
        };
        let server = NodeFacts::default();
        let denials = [denial("file"), denial("carves")];
        let told = why_not(&all, &denials, &laptop).unwrap();
        assert_eq!(told, "It is denied the table carves: private.");
        assert_eq!(why_not(&all, &denials[..1], &laptop), None);
        assert_eq!(why_not(&all, &denials, &server), None);
        let told = why_not(&options(), &[], &laptop).unwrap();
        assert!(told.ends_with("not laptop"), "{told}");
        let told = why_not(&CarveOptions::default(), &[], &server).unwrap();
        assert!(told.contains("switched off"), "{told}");
    }

    #[test]
    fn what_is_under_way_counts() {
        let node = NodeFacts::default();
        let fine = start(10, 100, 1000);
        for (usage, expected) in [
            ((1, 4, 2000), Ok(10)),
            ((2, 2, 0), Err(Refusal::TooManyOfNode)),
            ((0, 5, 0), Err(Refusal::TooMany)),
            ((0, 0, 2001), Err(Refusal::EnoughForToday)),
        ] {
            let usage = CarveUse {
                open_of_node: usage.0,
                open_in_all: usage.1,
                bytes_of_day: usage.2,
            };
            let decided = decide(&options(), &node, &fine, Some(&usage));
            assert_eq!(decided.map(|shape| shape.block_count()), expected);
        }
    }
}
