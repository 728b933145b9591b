//! What configs are made of, as admins set it. Whole: a snapshot of [`Parts`] by serde loses nothing, disabled objects included.
//!
//! Which node gets what is in `select`, how it is written in `assemble`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{DecoratorId, FilePathId, OptionId, PackId, QueryId, SectionId};
use crate::target::TargetText;

/// A named set of queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Which.
    pub id: PackId,
    /// Unique; part of the names of results.
    pub name: String,
    /// What it is for; never sent.
    pub description: String,
    /// Which nodes get it.
    pub target: TargetText,
    /// Is it sent at all?
    pub enabled: bool,
    /// Shipped with Ostiary.
    pub built_in: bool,
    /// osquery's own condition, e.g. `darwin` or `linux,windows`; empty for all.
    pub platform: String,
    /// Lowest osquery version, empty for all.
    pub version: String,
    /// Share of hosts in percent, by the SHA-1 of the host name.
    pub shard: Option<i16>,
    /// Discovery queries: the pack runs if each returns a row.
    pub discovery: Vec<String>,
    /// Other keys that came with an import, as sent: file paths, views and the like of the pack, and what we do not know.
    pub extra: Map<String, Value>,
    /// Its queries.
    pub queries: Vec<Query>,
}

/// A scheduled statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Which.
    pub id: QueryId,
    /// Unique in its pack, or in the schedule.
    pub name: String,
    /// What it is for; never sent.
    pub description: String,
    /// What its rows are good for; never sent.
    pub value: String,
    /// SQL as osquery understands it.
    pub sql: String,
    /// Is it sent at all?
    pub enabled: bool,
    /// Seconds, 1 to 604,800.
    pub interval_seconds: i32,
    /// All rows each time, rather than the differences.
    pub snapshot: bool,
    /// Are removed rows reported?
    pub removed: bool,
    /// May the watchdog denylist it?
    pub denylist: bool,
    /// From 5.17 on: run at once when osqueryd starts, in the order of these numbers.
    pub startup_priority: Option<i32>,
    /// As in [`Pack`].
    pub platform: String,
    /// As in [`Pack`].
    pub version: String,
    /// As in [`Pack`].
    pub shard: Option<i16>,
    /// Which nodes get it; looked at only for queries of the schedule, a pack's queries go with their pack.
    pub target: TargetText,
    /// Unknown keys, sent as they are.
    pub extra: Map<String, Value>,
}

/// A named set of files to watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilePath {
    /// Which.
    pub id: FilePathId,
    /// Unique.
    pub category: String,
    /// `%` and `%%` are osquery's wildcards.
    pub globs: Vec<String>,
    /// Statements that return more of them in a column `path`.
    pub queries: Vec<String>,
    /// What of it is left out.
    pub exclude_globs: Vec<String>,
    /// Are reads reported, too?
    pub file_accesses: bool,
    /// Which nodes get it.
    pub target: TargetText,
    /// Is it sent at all?
    pub enabled: bool,
}

/// A statement whose first row decorates every line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decorator {
    /// Which.
    pub id: DecoratorId,
    /// Unique; orders the statements.
    pub name: String,
    /// When it is run.
    pub moment: DecoratorMoment,
    /// SQL.
    pub sql: String,
    /// Which nodes get it.
    pub target: TargetText,
    /// Is it sent at all?
    pub enabled: bool,
}

/// When a decorator is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoratorMoment {
    /// When the config is loaded.
    Load,
    /// Before every query.
    Always,
    /// Every so many seconds, a multiple of 60.
    Interval(i32),
}

/// A flag of osquery, set for some nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigOption {
    /// Which.
    pub id: OptionId,
    /// The flag's name.
    pub name: String,
    /// Text, integer or bool; osquery misreads floats.
    pub value: Value,
    /// Which nodes get it.
    pub target: TargetText,
    /// Of several values for one node the one with the highest priority is sent.
    pub priority: i32,
}

/// A piece of any other top-level key (`yara`, `views`, …), also of those that osquery may know and we do not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Which.
    pub id: SectionId,
    /// The top-level key.
    pub key: String,
    /// What people call this piece; unique among the pieces of the key, never sent.
    pub name: String,
    /// What it is for; never sent.
    pub description: String,
    /// What stands under the key; pieces that apply to one node are merged.
    pub value: Value,
    /// Which nodes get it.
    pub target: TargetText,
    /// Where two pieces contradict each other the one with the higher priority stays.
    pub priority: i32,
    /// Is it sent at all?
    pub enabled: bool,
}

/// Something that nodes had and that osqueryd keeps until its restart when it is merely left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// The option's name, or the category's.
    pub name: String,
    /// Which nodes had it.
    pub target: TargetText,
    /// Since when it is gone. Nodes whose osqueryd started later do not carry it.
    pub since: DateTime<Utc>,
}

/// What can be left over, and be reset by sending something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// The value of an option: its default is sent.
    Option,
    /// Exclusions of a category: an empty list is sent.
    ExcludePaths,
}

/// Everything that may be part of a config, of the whole fleet, disabled objects included (they are never sent).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parts {
    /// Packs with their queries.
    pub packs: Vec<Pack>,
    /// Queries of the schedule.
    pub queries: Vec<Query>,
    /// File paths.
    pub file_paths: Vec<FilePath>,
    /// Decorators.
    pub decorators: Vec<Decorator>,
    /// Options.
    pub options: Vec<ConfigOption>,
    /// Pieces of other top-level keys.
    pub sections: Vec<Section>,
    /// What nodes may still carry and is no part any more.
    pub leftovers: Vec<Leftover>,
}

impl Parts {
    /// Sorts everything, the members of free JSON included, so that equal parts have equal bytes wherever they come from.
    /// [`select`](Self::select) and [`assemble`](Self::assemble) want sorted parts.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.packs.sort_by(|a, b| a.name.cmp(&b.name));
        for pack in &mut self.packs {
            pack.queries.sort_by(|a, b| a.name.cmp(&b.name));
            sort_members(&mut pack.extra);
            for query in &mut pack.queries {
                sort_members(&mut query.extra);
            }
        }
        self.queries.sort_by(|a, b| a.name.cmp(&b.name));
        for query in &mut self.queries {
            sort_members(&mut query.extra);
        }
        self.file_paths.sort_by(|a, b| a.category.cmp(&b.category));
        self.decorators.sort_by(|a, b| a.name.cmp(&b.name));
        self.options
            .sort_by(|a, b| (a.priority, &a.name, a.id).cmp(&(b.priority, &b.name, b.id)));
        for option in &mut self.options {
            option.value.sort_all_objects();
        }
        self.sections.sort_by(|a, b| {
            (&a.key, a.priority, &a.name, a.id).cmp(&(&b.key, b.priority, &b.name, b.id))
        });
        for section in &mut self.sections {
            section.value.sort_all_objects();
        }
        self.leftovers.sort_by(|a, b| {
            (a.kind, &a.name, a.target.as_str()).cmp(&(b.kind, &b.name, b.target.as_str()))
        });
        self
    }

    /// The enabled packs and queries and so on, without the others.
    #[must_use]
    pub fn enabled(mut self) -> Self {
        self.packs.retain(|pack| pack.enabled);
        for pack in &mut self.packs {
            pack.queries.retain(|query| query.enabled);
        }
        self.queries.retain(|query| query.enabled);
        self.file_paths.retain(|path| path.enabled);
        self.decorators.retain(|decorator| decorator.enabled);
        self.sections.retain(|section| section.enabled);
        self
    }
}

fn sort_members(map: &mut Map<String, Value>) {
    map.sort_keys();
    map.values_mut().for_each(Value::sort_all_objects);
}
