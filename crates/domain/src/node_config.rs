//! The config of a node: packs, queries, file paths, options and decorators by target, as osquery's JSON.
//!
//! **Invariant:** the same parts give the same bytes. A node hashes what it gets and tears its whole schedule down and up when a
//! byte differs (`osquery/config/config.cpp::updateSource`), so nothing here may depend on the order of rows or of a hash map.
//!
//! **Invariant:** no document exceeds [`MAX_BYTES`]. A node that gets a larger one has already dropped its schedule when it refuses.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::ids::{DecoratorId, FilePathId, OptionId, PackId, QueryId};
use crate::node::NodeFacts;
use crate::target::Target;

/// The largest document that every osquery takes: 1 MiB, compact (4 MiB only after 5.23.1).
pub const MAX_BYTES: usize = 1024 * 1024;

/// Pack and query names are joined with this in the names of results; osquery's own default `_` could not be taken apart again.
pub const PACK_DELIMITER: &str = "/";

/// A named set of queries.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Which.
    pub id: PackId,
    /// Unique; part of the names of results.
    pub name: String,
    /// What it is for; never sent.
    pub description: String,
    /// Which nodes get it.
    pub target: Target,
    /// osquery's own condition, e.g. `darwin` or `linux,windows`; empty for all.
    pub platform: String,
    /// Lowest osquery version, empty for all.
    pub version: String,
    /// Share of hosts in percent, by the SHA-1 of the host name.
    pub shard: Option<i16>,
    /// Discovery queries: the pack runs if each returns a row.
    pub discovery: Vec<String>,
    /// Keys that came with an import and that we do not know; sent as they are.
    pub extra: Map<String, Value>,
    /// Its queries.
    pub queries: Vec<Query>,
}

/// A scheduled statement.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which.
    pub id: QueryId,
    /// Unique in its pack, or in the schedule.
    pub name: String,
    /// SQL as osquery understands it.
    pub sql: String,
    /// Seconds, 1 to 604,800.
    pub interval_seconds: i32,
    /// All rows each time, rather than the differences.
    pub snapshot: bool,
    /// Are removed rows reported?
    pub removed: bool,
    /// May the watchdog denylist it?
    pub denylist: bool,
    /// As in [`Pack`].
    pub platform: String,
    /// As in [`Pack`].
    pub version: String,
    /// As in [`Pack`].
    pub shard: Option<i16>,
    /// Which nodes get it; looked at only for queries of the schedule, a pack's queries go with their pack.
    pub target: Target,
    /// Unknown keys, sent as they are.
    pub extra: Map<String, Value>,
}

/// A named set of globs to watch.
#[derive(Debug, Clone)]
pub struct FilePath {
    /// Which.
    pub id: FilePathId,
    /// Unique.
    pub category: String,
    /// `%` and `%%` are osquery's wildcards.
    pub globs: Vec<String>,
    /// What of it is left out.
    pub exclude_globs: Vec<String>,
    /// Are reads reported, too?
    pub file_accesses: bool,
    /// Which nodes get it.
    pub target: Target,
}

/// A statement whose first row decorates every line.
#[derive(Debug, Clone)]
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
    pub target: Target,
}

/// When a decorator is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoratorMoment {
    /// When the config is loaded.
    Load,
    /// Before every query.
    Always,
    /// Every so many seconds, a multiple of 60.
    Interval(i32),
}

/// A flag of osquery, set for some nodes.
#[derive(Debug, Clone)]
pub struct ConfigOption {
    /// Which.
    pub id: OptionId,
    /// The flag's name.
    pub name: String,
    /// String, integer or bool; osquery misreads floats.
    pub value: Value,
    /// Which nodes get it.
    pub target: Target,
    /// Of several values for one node the one with the highest priority is sent.
    pub priority: i32,
}

/// Everything that may be part of a config: what is enabled, of the whole fleet.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Enabled packs with their enabled queries.
    pub packs: Vec<Pack>,
    /// Enabled queries of the schedule.
    pub queries: Vec<Query>,
    /// Enabled file paths.
    pub file_paths: Vec<FilePath>,
    /// Enabled decorators.
    pub decorators: Vec<Decorator>,
    /// Options.
    pub options: Vec<ConfigOption>,
}

/// The document of one node, before it is written out.
pub type Document = Map<String, Value>;

impl Parts {
    /// Sorts everything by name, once, so that [`assemble`](Self::assemble) is deterministic.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.packs.sort_by(|a, b| a.name.cmp(&b.name));
        for pack in &mut self.packs {
            pack.queries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self.queries.sort_by(|a, b| a.name.cmp(&b.name));
        self.file_paths.sort_by(|a, b| a.category.cmp(&b.category));
        self.decorators.sort_by(|a, b| a.name.cmp(&b.name));
        self.options
            .sort_by(|a, b| (a.priority, &a.name, a.id).cmp(&(b.priority, &b.name, b.id)));
        self
    }

    /// Which parts apply to a node, a bit each: nodes with equal bits get equal documents, so a document is assembled once per
    /// distinct selection and kept.
    #[must_use]
    pub fn selection(&self, node: &NodeFacts) -> Vec<u64> {
        let targets = (self.packs.iter().map(|pack| &pack.target))
            .chain(self.queries.iter().map(|query| &query.target))
            .chain(self.file_paths.iter().map(|path| &path.target))
            .chain(self.decorators.iter().map(|decorator| &decorator.target))
            .chain(self.options.iter().map(|option| &option.target));
        let mut bits = Vec::new();
        for (index, target) in targets.enumerate() {
            if index % 64 == 0 {
                bits.push(0);
            }
            bits[index / 64] |= u64::from(target.matches(node)) << (index % 64);
        }
        bits
    }

    /// The document of a node. Call it on [`sorted`](Self::sorted) parts.
    ///
    /// Keys that osqueryd would otherwise keep until its restart are always sent, empty if need be (`views`,
    /// `auto_table_construction`, `prometheus_targets`), so that removing something works; so is `pack_delimiter`.
    #[must_use]
    pub fn assemble(&self, node: &NodeFacts) -> Document {
        let mut document = Map::new();
        document.insert("options".into(), Value::Object(self.options_of(node)));
        let mut schedule = Map::new();
        for query in self
            .queries
            .iter()
            .filter(|query| query.target.matches(node))
        {
            schedule.insert(query.name.clone(), query.to_json());
        }
        document.insert("schedule".into(), Value::Object(schedule));
        let mut packs = Map::new();
        for pack in self.packs.iter().filter(|pack| pack.target.matches(node)) {
            packs.insert(pack.name.clone(), pack.to_json());
        }
        document.insert("packs".into(), Value::Object(packs));
        self.add_decorators(node, &mut document);
        self.add_file_paths(node, &mut document);
        for key in ["views", "auto_table_construction", "prometheus_targets"] {
            document.insert(key.into(), json!({}));
        }
        document
    }

    fn options_of(&self, node: &NodeFacts) -> Map<String, Value> {
        let mut options = BTreeMap::from([("pack_delimiter", Value::from(PACK_DELIMITER))]);
        for option in self
            .options
            .iter()
            .filter(|option| option.target.matches(node))
        {
            // Sorted by priority: the last one stays. The delimiter is not for choosing: names of results depend on it.
            if option.name != "pack_delimiter" {
                options.insert(&option.name, option.value.clone());
            }
        }
        options
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn add_decorators(&self, node: &NodeFacts, document: &mut Document) {
        let (mut load, mut always) = (Vec::new(), Vec::new());
        let mut interval: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
        for decorator in self
            .decorators
            .iter()
            .filter(|decorator| decorator.target.matches(node))
        {
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

    fn add_file_paths(&self, node: &NodeFacts, document: &mut Document) {
        let (mut paths, mut excluded, mut accesses) = (Map::new(), Map::new(), Vec::new());
        for path in self
            .file_paths
            .iter()
            .filter(|path| path.target.matches(node))
        {
            paths.insert(path.category.clone(), json!(path.globs));
            // Exclusions of a category stay in a node until its restart; an empty list clears them.
            excluded.insert(path.category.clone(), json!(path.exclude_globs));
            if path.file_accesses {
                accesses.push(Value::from(path.category.as_str()));
            }
        }
        if !paths.is_empty() {
            document.insert("file_paths".into(), Value::Object(paths));
            document.insert("exclude_paths".into(), Value::Object(excluded));
            document.insert("file_accesses".into(), Value::Array(accesses));
        }
    }
}

impl Pack {
    fn to_json(&self) -> Value {
        let mut pack = Map::new();
        insert_conditions(&mut pack, &self.platform, &self.version, self.shard);
        if !self.discovery.is_empty() {
            pack.insert("discovery".into(), json!(self.discovery));
        }
        let queries: Map<String, Value> = self
            .queries
            .iter()
            .map(|query| (query.name.clone(), query.to_json()))
            .collect();
        pack.insert("queries".into(), Value::Object(queries));
        insert_extra(&mut pack, &self.extra);
        Value::Object(pack)
    }
}

impl Query {
    fn to_json(&self) -> Value {
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
            // `blacklist` until 4.x, `denylist` from 4.4 on; each ignores the other.
            query.insert("denylist".into(), Value::Bool(false));
            query.insert("blacklist".into(), Value::Bool(false));
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

fn insert_extra(map: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (key, value) in extra {
        if !map.contains_key(key) {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// A document as it goes over the wire: compact, raw UTF-8. osqueryd writes what it reads in the same form before it hashes it, so
/// these are the bytes that its `config_hash` is made of.
#[must_use]
pub fn to_bytes(document: &Document) -> Vec<u8> {
    serde_json::to_vec(document).expect("a map of JSON values can be written")
}

/// What `osquery_info.config_hash` of a node will be that runs these bytes: the SHA-1 of the lower-case hex of their SHA-1
/// (`osquery/config/config.cpp`, one source).
#[must_use]
pub fn config_hash(bytes: &[u8]) -> String {
    use sha1::{Digest, Sha1};
    hex::encode(Sha1::digest(hex::encode(Sha1::digest(bytes))))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn query(name: &str, target: &str) -> Query {
        Query {
            id: QueryId(Uuid::nil()),
            name: name.into(),
            sql: "SELECT 1".into(),
            interval_seconds: 60,
            snapshot: false,
            removed: true,
            denylist: true,
            platform: String::new(),
            version: String::new(),
            shard: None,
            target: Target::parse(target).unwrap(),
            extra: Map::new(),
        }
    }

    fn pack(name: &str, target: &str, queries: Vec<Query>) -> Pack {
        Pack {
            id: PackId(Uuid::nil()),
            name: name.into(),
            description: String::new(),
            target: Target::parse(target).unwrap(),
            platform: String::new(),
            version: String::new(),
            shard: None,
            discovery: Vec::new(),
            extra: Map::new(),
            queries,
        }
    }

    fn option(name: &str, value: Value, target: &str, priority: i32) -> ConfigOption {
        let target = Target::parse(target).unwrap();
        ConfigOption {
            id: OptionId(Uuid::nil()),
            name: name.into(),
            value,
            target,
            priority,
        }
    }

    fn node(tags: &[&str]) -> NodeFacts {
        NodeFacts {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..NodeFacts::default()
        }
    }

    fn parts() -> Parts {
        Parts {
            packs: vec![
                pack("z", "prod", vec![query("b", ""), query("a", "")]),
                pack("a", "lab", vec![]),
            ],
            queries: vec![query("q", ""), query("only_lab", "lab")],
            options: vec![
                option("logger_tls_period", json!(4), "lab", 10),
                option("logger_tls_period", json!(10), "", 0),
                option("pack_delimiter", json!("_"), "", 99),
            ],
            ..Parts::default()
        }
        .sorted()
    }

    #[test]
    fn a_node_gets_what_its_tags_choose() {
        let document = parts().assemble(&node(&["prod"]));
        let expected = json!({
            "options": {"logger_tls_period": 10, "pack_delimiter": "/"},
            "schedule": {"q": {"query": "SELECT 1", "interval": 60}},
            "packs": {"z": {"queries": {
                "a": {"query": "SELECT 1", "interval": 60},
                "b": {"query": "SELECT 1", "interval": 60}}}},
            "views": {}, "auto_table_construction": {}, "prometheus_targets": {}
        });
        assert_eq!(Value::Object(document), expected);
        let document = parts().assemble(&node(&["lab"]));
        assert_eq!(document["options"]["logger_tls_period"], 4);
        assert_eq!(document["schedule"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn equal_selections_mean_equal_bytes_whatever_the_order_of_the_parts() {
        let forward = parts();
        let mut backward = parts();
        backward.packs.reverse();
        backward.packs[0].queries.reverse();
        backward.queries.reverse();
        backward.options.reverse();
        let backward = backward.sorted();
        for tags in [&[][..], &["prod"], &["lab", "prod"]] {
            let node = node(tags);
            assert_eq!(
                to_bytes(&forward.assemble(&node)),
                to_bytes(&backward.assemble(&node))
            );
        }
        assert_eq!(
            forward.selection(&node(&["prod"])),
            forward.selection(&node(&["prod", "other"]))
        );
        assert_ne!(
            forward.selection(&node(&["prod"])),
            forward.selection(&node(&["lab"]))
        );
    }

    #[test]
    fn unknown_keys_are_sent_but_never_over_known_ones() {
        let mut query = query("q", "");
        query.extra = json!({"startup_priority": 1, "interval": 5})
            .as_object()
            .unwrap()
            .clone();
        assert_eq!(
            query.to_json(),
            json!({"query": "SELECT 1", "interval": 60, "startup_priority": 1})
        );
    }

    #[test]
    fn the_config_hash_is_the_one_that_osquery_reports() {
        let text = r#"{"schedule":{"tls_proc":{"query":"select * from processes","interval":1}},"node_invalid":false,"node":true}"#;
        assert_eq!(
            config_hash(text.as_bytes()),
            "23a948b13698104a4b1009facfbdf554f2bdce7e"
        );
    }
}
