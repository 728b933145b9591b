//! Writes what a selection chooses as osquery's JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::select::Chosen;
use super::{
    DecoratorMoment, Document, LeftoverKind, Pack, Parts, Query, Selection, VersionFamily, flags,
    section,
};
use crate::node::NodeFacts;

/// Pack and query names are joined with this in the names of results; osquery's own default `_` could not be taken apart again.
pub const PACK_DELIMITER: &str = "/";

/// Keys whose entries osqueryd keeps until its restart when the key is left out, and forgets when it comes empty (`yara` and `events`
/// stick even then).
const RESETTABLE: [&str; 5] = [
    "views",
    "auto_table_construction",
    "prometheus_targets",
    "feature_vectors",
    "kafka_topics",
];

impl Parts {
    /// The document of a node. Call it on [`sorted`](Self::sorted) parts.
    #[must_use]
    pub fn assemble(&self, node: &NodeFacts) -> Document {
        self.assemble_selection(&self.select(node))
    }

    /// The document of all nodes with this selection. Call it on [`sorted`](Self::sorted) parts, those of the selection.
    ///
    /// Keys that osqueryd would otherwise keep until its restart are always sent, empty if need be, so that removing something
    /// works; so is `pack_delimiter`.
    #[must_use]
    pub fn assemble_selection(&self, selection: &Selection) -> Document {
        let chosen = self.chosen(selection);
        let mut document = Map::new();
        document.insert("options".into(), Value::Object(options(&chosen)));
        let schedule: Map<String, Value> = (chosen.queries.iter())
            .map(|query| (query.name.clone(), query.to_json(chosen.family)))
            .collect();
        document.insert("schedule".into(), Value::Object(schedule));
        let packs: Map<String, Value> = (chosen.packs.iter())
            .map(|pack| (pack.name.clone(), pack.to_json(chosen.family)))
            .collect();
        document.insert("packs".into(), Value::Object(packs));
        add_decorators(&chosen, &mut document);
        add_file_paths(&chosen, &mut document);
        add_sections(&chosen, &mut document);
        document
    }
}

/// The document's options.
pub(super) fn options(chosen: &Chosen<'_>) -> Map<String, Value> {
    let mut options = BTreeMap::new();
    for (kind, name) in &chosen.leftovers {
        // Where a pack sets the option, the selection has no reset of it.
        if *kind == LeftoverKind::Option
            && let Some(default) = flags::find(name).and_then(flags::Flag::reset_value)
        {
            options.insert(*name, default);
        }
    }
    for option in &chosen.options {
        // Sorted by priority: the last one stays.
        options.insert(&option.name, option.value.clone());
    }
    // The delimiter is not for choosing: names of results depend on it.
    options.insert("pack_delimiter", Value::from(PACK_DELIMITER));
    options
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn add_decorators(chosen: &Chosen<'_>, document: &mut Document) {
    let (mut load, mut always) = (Vec::new(), Vec::new());
    let mut interval: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
    for decorator in &chosen.decorators {
        let sql = Value::from(decorator.sql.as_str());
        match decorator.moment {
            DecoratorMoment::Load => load.push(sql),
            DecoratorMoment::Always => always.push(sql),
            DecoratorMoment::Interval(seconds) => {
                interval.entry(seconds).or_default().push(sql);
            }
        }
    }
    if load.is_empty() && always.is_empty() && interval.is_empty() {
        return;
    }
    let interval: Map<String, Value> = interval
        .into_iter()
        .map(|(seconds, sql)| (seconds.to_string(), Value::Array(sql)))
        .collect();
    document.insert(
        "decorators".into(),
        json!({"load": load, "always": always, "interval": interval}),
    );
}

fn add_file_paths(chosen: &Chosen<'_>, document: &mut Document) {
    let (mut paths, mut queries, mut accesses) = (Map::new(), Map::new(), Vec::new());
    let mut excluded: BTreeMap<&str, &[String]> = BTreeMap::new();
    for (kind, name) in &chosen.leftovers {
        if *kind == LeftoverKind::ExcludePaths {
            excluded.insert(name, &[]);
        }
    }
    for (path, is_chosen) in &chosen.file_paths {
        if !is_chosen {
            // osqueryd merges exclusions category by category, keeps them until its restart, and applies all of them to all
            // categories: what a node may have of another target would silently blind it.
            if !path.exclude_globs.is_empty() {
                excluded.insert(&path.category, &[]);
            }
            continue;
        }
        excluded.insert(&path.category, &path.exclude_globs);
        if !path.globs.is_empty() {
            paths.insert(path.category.clone(), json!(path.globs));
        }
        if !path.queries.is_empty() {
            queries.insert(path.category.clone(), json!(path.queries));
        }
        if path.file_accesses {
            accesses.push(Value::from(path.category.as_str()));
        }
    }
    // osqueryd looks at none of the four keys unless one of these two is there.
    if paths.is_empty() && queries.is_empty() {
        return;
    }
    document.insert("file_paths".into(), Value::Object(paths));
    if !queries.is_empty() {
        document.insert("file_paths_query".into(), Value::Object(queries));
    }
    document.insert("exclude_paths".into(), json!(excluded));
    document.insert("file_accesses".into(), Value::Array(accesses));
}

fn add_sections(chosen: &Chosen<'_>, document: &mut Document) {
    let mut merged: BTreeMap<&str, Value> = BTreeMap::new();
    // A pack's own views and the like would be reset by an empty key beside it: packs are read first.
    let of_packs: BTreeSet<&str> = (chosen.packs.iter())
        .flat_map(|pack| pack.extra.keys().map(String::as_str))
        .collect();
    for key in RESETTABLE {
        if !of_packs.contains(key) {
            merged.insert(key, json!({}));
        }
    }
    for piece in &chosen.sections {
        match merged.get_mut(piece.key.as_str()) {
            Some(before) => section::merge(&piece.key, before, &piece.value),
            None => {
                merged.insert(&piece.key, piece.value.clone());
            }
        }
    }
    for (key, value) in merged {
        // Another part of the document wins over a piece that should never have been saved.
        if !document.contains_key(key) {
            document.insert(key.to_owned(), value);
        }
    }
}

impl Pack {
    /// As it stands under its name in `packs`.
    #[must_use]
    pub fn to_json(&self, family: VersionFamily) -> Value {
        let mut pack = Map::new();
        insert_conditions(&mut pack, &self.platform, &self.version, self.shard);
        if !self.discovery.is_empty() {
            pack.insert("discovery".into(), json!(self.discovery));
        }
        let queries: Map<String, Value> = (self.queries.iter())
            .filter(|query| query.enabled)
            .map(|query| (query.name.clone(), query.to_json(family)))
            .collect();
        pack.insert("queries".into(), Value::Object(queries));
        insert_extra(&mut pack, &self.extra);
        Value::Object(pack)
    }
}

impl Query {
    /// As it stands under its name in `schedule`, or in its pack.
    #[must_use]
    pub fn to_json(&self, family: VersionFamily) -> Value {
        let mut query = Map::new();
        query.insert("query".into(), Value::from(self.sql.as_str()));
        query.insert("interval".into(), Value::from(self.interval_seconds));
        if self.snapshot {
            query.insert("snapshot".into(), Value::Bool(true));
        }
        if !self.removed {
            query.insert("removed".into(), Value::Bool(false));
        }
        if !self.denylist {
            query.insert("denylist".into(), Value::Bool(false));
            if family == VersionFamily::BeforeFive {
                query.insert("blacklist".into(), Value::Bool(false));
            }
        }
        if let Some(priority) = self.startup_priority {
            query.insert("startup_priority".into(), Value::from(priority));
        }
        insert_conditions(&mut query, &self.platform, &self.version, self.shard);
        insert_extra(&mut query, &self.extra);
        Value::Object(query)
    }
}

fn insert_conditions(
    map: &mut Map<String, Value>,
    platform: &str,
    version: &str,
    shard: Option<i16>,
) {
    if !platform.is_empty() {
        map.insert("platform".into(), Value::from(platform));
    }
    if !version.is_empty() {
        map.insert("version".into(), Value::from(version));
    }
    if let Some(shard) = shard {
        map.insert("shard".into(), Value::from(shard));
    }
}

/// Adds unknown keys, never over known ones.
fn insert_extra(map: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (key, value) in extra {
        if !map.contains_key(key) {
            map.insert(key.clone(), value.clone());
        }
    }
}
