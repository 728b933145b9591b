//! Writing files that osqueryd reads: strict JSON, and [`parse`](super::parse) reads it back to the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ImportedFile, ImportedPack, ImportedQuery};

/// A pack as a file of its own, or as it stands under its name in `packs`. Its name is not in it, and neither is its target.
#[must_use]
pub fn write_pack(pack: &ImportedPack) -> Map<String, Value> {
    let mut map = Map::new();
    text(&mut map, "description", &pack.description);
    conditions(&mut map, &pack.platform, &pack.version, pack.shard);
    if !pack.discovery.is_empty() {
        map.insert("discovery".into(), json!(pack.discovery));
    }
    map.insert("queries".into(), queries(&pack.queries));
    rest(&mut map, &pack.extra);
    map
}

/// A whole config.
#[must_use]
pub fn write(file: &ImportedFile) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("options".into(), Value::Object(file.options.clone()));
    map.insert("schedule".into(), queries(&file.schedule));
    let packs: Map<String, Value> = (file.packs.iter())
        .map(|pack| (pack.name.clone(), Value::Object(write_pack(pack))))
        .collect();
    map.insert("packs".into(), Value::Object(packs));
    if !file.decorators.is_empty() {
        map.insert("decorators".into(), Value::Object(file.decorators.clone()));
    }
    file_paths(file, &mut map);
    rest(&mut map, &file.extra);
    map
}

fn queries(queries: &[ImportedQuery]) -> Value {
    let queries: Map<String, Value> = (queries.iter())
        .map(|query| (query.name.clone(), Value::Object(write_query(query))))
        .collect();
    Value::Object(queries)
}

fn write_query(query: &ImportedQuery) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("query".into(), Value::from(query.sql.as_str()));
    map.insert("interval".into(), Value::from(query.interval));
    if query.snapshot {
        map.insert("snapshot".into(), Value::Bool(true));
    }
    if !query.removed {
        map.insert("removed".into(), Value::Bool(false));
    }
    if !query.denylist {
        map.insert("denylist".into(), Value::Bool(false));
        // Its name before osquery 5.0.
        map.insert("blacklist".into(), Value::Bool(false));
    }
    if let Some(priority) = query.startup_priority {
        map.insert("startup_priority".into(), Value::from(priority));
    }
    conditions(&mut map, &query.platform, &query.version, query.shard);
    text(&mut map, "description", &query.description);
    text(&mut map, "value", &query.value);
    rest(&mut map, &query.extra);
    map
}

fn file_paths(file: &ImportedFile, map: &mut Map<String, Value>) {
    let (mut paths, mut by_query, mut accesses) = (Map::new(), Map::new(), Vec::new());
    let mut excluded: BTreeMap<&str, &[String]> = BTreeMap::new();
    for path in &file.file_paths {
        if path.queries.is_empty() || !path.globs.is_empty() {
            paths.insert(path.category.clone(), json!(path.globs));
        }
        if !path.queries.is_empty() {
            by_query.insert(path.category.clone(), json!(path.queries));
        }
        if !path.exclude_globs.is_empty() {
            excluded.insert(&path.category, &path.exclude_globs);
        }
        if path.file_accesses {
            accesses.push(path.category.as_str());
        }
    }
    let members = [
        ("file_paths", Value::Object(paths)),
        ("file_paths_query", Value::Object(by_query)),
        ("exclude_paths", json!(excluded)),
        ("file_accesses", json!(accesses)),
    ];
    for (key, value) in members {
        let is_empty = value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            map.insert(key.into(), value);
        }
    }
}

fn text(map: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        map.insert(key.into(), Value::from(value));
    }
}

fn conditions(map: &mut Map<String, Value>, platform: &str, version: &str, shard: Option<u8>) {
    text(map, "platform", platform);
    text(map, "version", version);
    if let Some(shard) = shard {
        map.insert("shard".into(), Value::from(shard));
    }
}

fn rest(map: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (key, value) in extra {
        if !map.contains_key(key) {
            map.insert(key.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::super::{ImportedFilePaths, MAX_INTERVAL, parse};
    use super::*;

    fn name() -> impl Strategy<Value = String> {
        // What osquery's published packs have in names, and more.
        "[a-zA-Z0-9 ./`_'\"\\\\üß-]{1,12}"
    }

    fn extra() -> impl Strategy<Value = Map<String, Value>> {
        btree_map("x_[a-z]{1,4}", any::<i32>(), 0..3).prop_map(|map| {
            map.into_iter()
                .map(|(key, value)| (key, json!({"deep": [value]})))
                .collect()
        })
    }

    prop_compose! {
        fn query()(
            name in name(), sql in "SELECT [a-z%\"'\\\\ \\n]{1,20};", interval in 1..=MAX_INTERVAL,
            (snapshot, removed, denylist) in any::<(bool, bool, bool)>(),
            startup_priority in proptest::option::of(0..1000_i32), platform in "(linux|darwin|windows,linux)?",
            version in "(5\\.[0-9])?", shard in proptest::option::of(1..=100_u8), description in ".{0,10}", value in ".{0,10}",
            extra in extra(),
        ) -> ImportedQuery {
            ImportedQuery { name, sql, interval, snapshot, removed, denylist, startup_priority, target: String::new(), platform, version,
                shard, description, value, extra }
        }
    }

    fn queries() -> impl Strategy<Value = Vec<ImportedQuery>> {
        vec(query(), 0..5).prop_map(|mut queries| {
            let mut seen = std::collections::HashSet::new();
            queries.retain(|query| seen.insert(query.name.clone()));
            queries
        })
    }

    prop_compose! {
        fn pack()(
            name in name(), description in ".{0,10}", platform in "(posix)?", version in "(4\\.0\\.1)?",
            shard in proptest::option::of(1..=100_u8), discovery in vec("SELECT [a-z]{1,5}", 0..3), queries in queries(), extra in extra(),
        ) -> ImportedPack {
            ImportedPack { name, description, target: String::new(), platform, version, shard, discovery, queries, extra }
        }
    }

    prop_compose! {
        fn path(category: String)(
            globs in vec("/[a-z%]{1,8}", 0..3), queries in vec("SELECT path", 0..2), exclude_globs in vec("/[a-z]{1,8}", 0..2),
            file_accesses in any::<bool>(),
        ) -> ImportedFilePaths {
            ImportedFilePaths { category: category.clone(), globs, queries, exclude_globs, file_accesses }
        }
    }

    prop_compose! {
        fn file()(
            pack in pack(), schedule in queries(), options in btree_map("[a-z_]{1,10}", any::<i64>(), 0..4), extra in extra(),
            etc in path("etc".into()), load in vec("SELECT [a-z]{1,3}", 0..3),
        ) -> ImportedFile {
            let decorators = if load.is_empty() { Map::new() } else { Map::from_iter([("load".to_owned(), json!(load))]) };
            let options = options.into_iter().map(|(key, value)| (key, json!(value))).collect();
            ImportedFile { packs: vec![pack], schedule, options, decorators, file_paths: vec![etc], extra, ..ImportedFile::default() }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_to_the_same(file in file()) {
            let text = Value::Object(write(&file)).to_string();
            prop_assert_eq!(parse(&text, "unnamed").unwrap(), file);
        }

        #[test]
        fn a_pack_that_was_written_is_read_back_to_the_same(pack in pack()) {
            let text = serde_json::to_string_pretty(&write_pack(&pack)).unwrap();
            let read = parse(&text, &pack.name).unwrap();
            prop_assert_eq!(&read.packs, &[pack]);
            prop_assert!(read.problems.is_empty());
        }
    }
}
