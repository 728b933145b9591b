//! A config as a node takes it: its hash, its options, and the queries, packs, decorators and file paths
//! that apply to this node. When queries run is decided in `schedule`.

use serde_json::{Map, Value as Json};
use sha1::{Digest, Sha1};

use crate::identity::Platform;
use crate::version::Version;

/// The largest config, compact, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 32;

/// A scheduled query under its final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledQuery {
    /// The name in log lines.
    pub name: String,
    /// The name in its pack or schedule, by which the splay is remembered.
    pub bare_name: String,
    /// The SQL.
    pub sql: String,
    /// Seconds between runs, as the config says.
    pub interval: u64,
    /// Whether all rows are sent each time.
    pub snapshot: bool,
    /// Whether `removed` rows are sent.
    pub removed: bool,
    /// The pack it belongs to.
    pub pack: Option<usize>,
}

/// A pack that applies to this node, with the SQL that decides if it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Its name.
    pub name: String,
    /// All of these must return a row.
    pub discovery: Vec<String>,
}

/// What applies to one node of one config document.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What `osquery_info.config_hash` says.
    pub hash: String,
    /// Whether the document was taken.
    pub valid: bool,
    /// The options of this document; a node merges them into those it has.
    pub options: Map<String, Json>,
    /// The queries.
    pub queries: Vec<ScheduledQuery>,
    /// The packs that queries point to.
    pub packs: Vec<Pack>,
    /// SQL of decorators: run at load, for each line, and by seconds.
    pub decorators: Decorators,
    /// File integrity: category and globs.
    pub file_paths: Vec<(String, Vec<String>)>,
    /// What osquery would say in its status log.
    pub warnings: Vec<String>,
}

/// The SQL of decorators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decorators {
    /// Run when a config is loaded, and at intervals (seconds); 0 means only at load.
    pub timed: Vec<(u64, String)>,
    /// Run for each line.
    pub always: Vec<String>,
}

/// The node that a config is read for.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    /// Its platform.
    pub platform: Platform,
    /// Its osquery.
    pub version: Version,
    /// Its host name, for shards.
    pub hostname: &'a str,
    /// The options in force, those of the document included.
    pub options: &'a Map<String, Json>,
}

/// What `osquery_info.config_hash` says of a single source: the SHA-1 of the hex of the SHA-1.
pub fn config_hash(compact: &str) -> String {
    hex::encode(Sha1::digest(hex::encode(Sha1::digest(compact))))
}

/// Whether a `platform` value applies: a substring test, so comma lists and odd spellings pass.
pub fn platform_applies(wanted: &str, platform: Platform) -> bool {
    let has = |word: &str| wanted.contains(word);
    wanted.is_empty()
        || has("any")
        || has("all")
        || has(platform.build_name())
        || (platform == Platform::Linux && (has("ubuntu") || has("centos")))
        || (platform != Platform::Windows && has("posix"))
}

/// Whether a `shard` (1 to 100, 0 is off) takes in the host: by the first byte of its name's SHA-1.
pub fn shard_applies(shard: u64, hostname: &str) -> bool {
    shard == 0 || u64::from(Sha1::digest(hostname)[0]) * 100 / 255 <= shard
}

/// Whether an osquery of this version meets the minimum that `wanted` names.
pub fn version_applies(wanted: &str, version: Version) -> bool {
    wanted.is_empty()
        || wanted
            .parse()
            .is_ok_and(|minimum: Version| version >= minimum)
}

/// osquery's way to a boolean: a boolean, a number that is not 0, the texts `true` and `t`; `"1"` is false.
pub fn boolean(value: Option<&Json>, default: bool) -> bool {
    match value {
        Some(Json::Bool(flag)) => *flag,
        Some(Json::Number(number)) => number.as_f64() != Some(0.0),
        Some(Json::String(text)) => text == "true" || text == "t",
        _ => default,
    }
}

/// A whole number, given as such or as decimal text; never a float.
pub fn whole(value: Option<&Json>) -> Option<u64> {
    match value? {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn text<'a>(object: &'a Map<String, Json>, key: &str) -> &'a str {
    object.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn texts(value: Option<&Json>) -> Vec<String> {
    value
        .and_then(Json::as_array)
        .map(|items| {
            items
                .iter()
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}

impl Reader<'_> {
    fn applies(&self, object: &Map<String, Json>) -> bool {
        platform_applies(text(object, "platform"), self.platform)
            && version_applies(text(object, "version"), self.version)
            && shard_applies(whole(object.get("shard")).unwrap_or(0), self.hostname)
    }

    /// Reads a document whose compact text is `compact`. One that is too large or too deep is rejected
    /// after the old schedule was removed, and its hash is remembered, as osquery does.
    pub fn read(&self, document: &Map<String, Json>, compact: &str) -> Config {
        let mut config = Config {
            hash: config_hash(compact),
            ..Config::default()
        };
        let too_deep = self.version.limits_depth()
            && 1 + document.values().map(depth).max().unwrap_or(0) > MAX_DEPTH;
        if compact.len() > MAX_BYTES || too_deep {
            config
                .warnings
                .push("updateSource failed to parse config, of source: tls_plugin".to_owned());
            return config;
        }
        config.valid = true;
        config.options = document
            .get("options")
            .and_then(Json::as_object)
            .cloned()
            .unwrap_or_default();
        if let Some(schedule) = document.get("schedule").and_then(Json::as_object) {
            for (name, entry) in schedule {
                self.add_query(&mut config, name.clone(), name, entry, None);
            }
        }
        if let Some(packs) = document.get("packs").and_then(Json::as_object) {
            for (name, pack) in packs {
                match (name.as_str(), pack.as_object()) {
                    ("*", Some(several)) => {
                        several
                            .iter()
                            .for_each(|(name, pack)| self.add_pack(&mut config, name, pack));
                    }
                    _ => self.add_pack(&mut config, name, pack),
                }
            }
        }
        read_file_paths(&mut config, document);
        config.decorators = decorators(document.get("decorators"));
        config
    }

    fn add_pack(&self, config: &mut Config, name: &str, pack: &Json) {
        // A text asks the config plugin for the pack, which the TLS plugin cannot give.
        let Some(pack) = pack.as_object() else { return };
        if !self.applies(pack) {
            return;
        }
        let delimiter = self
            .options
            .get("pack_delimiter")
            .and_then(Json::as_str)
            .unwrap_or("_");
        let index = config.packs.len();
        config.packs.push(Pack {
            name: name.to_owned(),
            discovery: texts(pack.get("discovery")),
        });
        read_file_paths(config, pack);
        for (query, entry) in pack
            .get("queries")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
        {
            let full = if name == "main" {
                query.clone()
            } else {
                format!("pack{delimiter}{name}{delimiter}{query}")
            };
            self.add_query(config, full, query, entry, Some(index));
        }
    }

    fn add_query(
        &self,
        config: &mut Config,
        name: String,
        bare: &str,
        entry: &Json,
        pack: Option<usize>,
    ) {
        let Some(entry) = entry.as_object() else {
            return;
        };
        let sql = text(entry, "query");
        if sql.is_empty() || !self.applies(entry) {
            return;
        }
        let default = whole(self.options.get("schedule_default_interval")).unwrap_or(3600);
        let interval = entry
            .get("interval")
            .map_or(Some(default), |value| whole(Some(value)));
        let Some(interval) = interval.filter(|interval| (1..=604_800).contains(interval)) else {
            config
                .warnings
                .push(format!("Query has invalid interval: {name}"));
            return;
        };
        config.queries.push(ScheduledQuery {
            name,
            bare_name: bare.to_owned(),
            sql: sql.to_owned(),
            interval,
            snapshot: boolean(entry.get("snapshot"), false),
            removed: boolean(entry.get("removed"), true),
            pack,
        });
    }
}

fn read_file_paths(config: &mut Config, document: &Map<String, Json>) {
    for (category, globs) in document
        .get("file_paths")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        config
            .file_paths
            .push((category.clone(), texts(Some(globs))));
    }
}

fn decorators(value: Option<&Json>) -> Decorators {
    let Some(object) = value.and_then(Json::as_object) else {
        return Decorators::default();
    };
    let mut timed: Vec<(u64, String)> = texts(object.get("load"))
        .into_iter()
        .map(|sql| (0, sql))
        .collect();
    for (seconds, queries) in object
        .get("interval")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        if let Ok(seconds) = seconds.parse::<u64>()
            && seconds > 0
            && seconds.is_multiple_of(60)
        {
            timed.extend(texts(Some(queries)).into_iter().map(|sql| (seconds, sql)));
        }
    }
    Decorators {
        timed,
        always: texts(object.get("always")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str, version: Version, platform: Platform) -> Config {
        let document: Map<String, Json> = serde_json::from_str(document).unwrap();
        let options = document
            .get("options")
            .and_then(Json::as_object)
            .cloned()
            .unwrap_or_default();
        let compact = Json::Object(document.clone()).to_string();
        Reader {
            platform,
            version,
            hostname: "web-1",
            options: &options,
        }
        .read(&document, &compact)
    }

    #[test]
    fn the_hash_is_the_sha1_of_the_hex_of_the_sha1() {
        let compact = r#"{"schedule":{"tls_proc":{"query":"select * from processes","interval":1}},"node_invalid":false,"node":true}"#;
        assert_eq!(
            config_hash(compact),
            "23a948b13698104a4b1009facfbdf554f2bdce7e"
        );
    }

    #[test]
    fn platforms_are_found_as_substrings() {
        for (wanted, linux, darwin, windows) in [
            ("", true, true, true),
            ("any", true, true, true),
            ("all", true, true, true),
            ("linux,darwin", true, true, false),
            ("posix", true, true, false),
            ("ubuntu", true, false, false),
            ("centos", true, false, false),
            ("windows", false, false, true),
            ("gentoo", false, false, false),
        ] {
            assert_eq!(platform_applies(wanted, Platform::Linux), linux, "{wanted}");
            assert_eq!(
                platform_applies(wanted, Platform::Darwin),
                darwin,
                "{wanted}"
            );
            assert_eq!(
                platform_applies(wanted, Platform::Windows),
                windows,
                "{wanted}"
            );
        }
    }

    #[test]
    fn shards_follow_the_first_byte_of_the_host_names_hash() {
        let share = u64::from(Sha1::digest("web-1")[0]) * 100 / 255;
        assert!(shard_applies(share, "web-1"));
        assert!(share == 0 || share == 1 || !shard_applies(share - 1, "web-1"));
        assert!(shard_applies(0, "web-1") && shard_applies(100, "web-1"));
    }

    #[test]
    fn packs_name_their_queries_with_the_delimiter_and_filter_them() {
        let config = read(
            r#"{"options":{"pack_delimiter":"/"},
                "packs":{"it":{"platform":"linux","discovery":["select 1",7],"queries":{
                    "a":{"query":"select 1","interval":"60"},
                    "b":{"query":"select 1","interval":60,"platform":"windows"},
                    "c":{"query":"select 1","interval":60,"version":"5.20.0"},
                    "d":{"query":"select 1","interval":0}}},
                  "mac":{"platform":"darwin","queries":{"x":{"query":"select 1","interval":60}}},
                  "text":"file"}}"#,
            Version(5, 9, 1),
            Platform::Linux,
        );
        let names: Vec<_> = config
            .queries
            .iter()
            .map(|query| query.name.as_str())
            .collect();
        assert_eq!(names, ["pack/it/a"]);
        assert_eq!(
            config.packs,
            [Pack {
                name: "it".to_owned(),
                discovery: vec!["select 1".to_owned()]
            }]
        );
        assert_eq!(config.warnings, ["Query has invalid interval: pack/it/d"]);
    }

    #[test]
    fn booleans_are_read_as_osquery_reads_them() {
        let config = read(
            r#"{"schedule":{"a":{"query":"q","interval":9,"snapshot":"1"},"b":{"query":"q","interval":9,"snapshot":"true","removed":0}}}"#,
            Version(5, 23, 1),
            Platform::Linux,
        );
        assert!(!config.queries[0].snapshot && config.queries[0].removed);
        assert!(config.queries[1].snapshot && !config.queries[1].removed);
    }

    #[test]
    fn an_oversized_config_leaves_no_schedule_but_its_hash() {
        let big = format!(
            r#"{{"schedule":{{"a":{{"query":"q","interval":9}}}},"x":"{}"}}"#,
            "y".repeat(MAX_BYTES)
        );
        let config = read(&big, Version(5, 23, 1), Platform::Linux);
        assert!(config.queries.is_empty() && !config.valid && !config.hash.is_empty());
    }
}
