//! What a file holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Entry;
use super::read::read;
use super::strip::strip;

/// Seconds between two runs of a query that does not say (`--schedule_default_interval`).
pub const DEFAULT_INTERVAL: u32 = 3600;

/// Most seconds between two runs: a week. osqueryd skips a query beyond.
pub const MAX_INTERVAL: u32 = 604_800;

/// Why a file cannot be imported at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackFileError {
    /// It is not JSON once comments and continuations are gone.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Line of the file, counted from 1; of a continued line, the first.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// It is JSON, but not an object.
    #[error("the file is not a JSON object")]
    NotAnObject,
    /// It is an object without anything to import.
    #[error("the file holds neither queries nor packs nor any other part of a config")]
    Nothing,
}

/// Something in the file that cannot be used as it stands; the rest of the file can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which entry: `packs.it.queries.usb`.
    pub entry: String,
    /// What is wrong, and what was done about it.
    pub what: String,
}

/// Everything that a file holds, in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedFile {
    /// Is it one pack, rather than a whole config?
    pub is_pack: bool,
    /// Its packs; a pack file is one, a whole config has any number.
    pub packs: Vec<ImportedPack>,
    /// Queries of the schedule, outside of packs.
    pub schedule: Vec<ImportedQuery>,
    /// osquery options by name.
    pub options: Map<String, Value>,
    /// Decorators by when they run: `load`, `always`, `interval`.
    pub decorators: Map<String, Value>,
    /// Files to watch, by category.
    pub file_paths: Vec<ImportedFilePaths>,
    /// Tags to be made; only files of other managers have some.
    pub tags: Vec<ImportedTag>,
    /// Other top-level keys.
    pub extra: Map<String, Value>,
    /// What could not be used.
    pub problems: Vec<Problem>,
}

/// A tag, and who carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedTag {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Host names, host identifiers or serials of nodes.
    pub hosts: Vec<String>,
}

/// One category of files to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFilePaths {
    /// The category.
    pub category: String,
    /// Patterns of `file_paths`.
    pub globs: Vec<String>,
    /// SQL of `file_paths_query`, which returns more of them.
    pub queries: Vec<String>,
    /// Patterns of `exclude_paths`.
    pub exclude_globs: Vec<String>,
    /// Whether accesses are watched too (`file_accesses`).
    pub file_accesses: bool,
}

/// A pack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedPack {
    /// Its name: free text.
    pub name: String,
    /// What it is for; only files of other managers say.
    pub description: String,
    /// Tag expression that narrows the target of the import; only from files of other managers.
    pub target: String,
    /// Comma list of platforms, `""` for all.
    pub platform: String,
    /// Lowest version of osquery, `""` for any.
    pub version: String,
    /// Per cent of nodes, by a hash of the host name.
    pub shard: Option<u8>,
    /// SQL of which each has to yield a row for the pack to run.
    pub discovery: Vec<String>,
    /// Its queries.
    pub queries: Vec<ImportedQuery>,
    /// Other keys, such as `file_paths` inside of a pack, or `oncall`.
    pub extra: Map<String, Value>,
}

/// A scheduled query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportedQuery {
    /// Its name: free text, as in `` mithra`s_rootkit ``.
    pub name: String,
    /// The SQL.
    pub sql: String,
    /// Seconds between two runs.
    pub interval: u32,
    /// All rows each time, not the changes.
    pub snapshot: bool,
    /// Whether rows that are gone are reported.
    pub removed: bool,
    /// Whether a query that gets the worker killed is denied for a day (`blacklist` before osquery 5.0).
    pub denylist: bool,
    /// Run at once when osqueryd starts, in the order of these numbers.
    pub startup_priority: Option<i32>,
    /// Tag expression that narrows the target of the import; only from files of other managers.
    pub target: String,
    /// Comma list of platforms, `""` for all.
    pub platform: String,
    /// Lowest version of osquery, `""` for any.
    pub version: String,
    /// Per cent of nodes, by a hash of the host name.
    pub shard: Option<u8>,
    /// For people; osqueryd ignores it.
    pub description: String,
    /// For people: what it is good for.
    pub value: String,
    /// Other keys, such as `oncall`.
    pub extra: Map<String, Value>,
}

/// Reads the text of a `.conf` file; a pack that does not name itself (none does) gets `pack_name`.
///
/// # Errors
/// The file is no JSON, no object, or empty. Entries that cannot be used are [`ImportedFile::problems`].
pub fn parse(text: &str, pack_name: &str) -> Result<ImportedFile, PackFileError> {
    let stripped = strip(text);
    let (root, repeated) = read(&stripped.json).map_err(|error| PackFileError::Syntax {
        line: stripped.source_line(error.line()),
        reason: without_position(&error.to_string()),
    })?;
    let Value::Object(fields) = root else {
        return Err(PackFileError::NotAnObject);
    };
    if fields.is_empty() {
        return Err(PackFileError::Nothing);
    }
    let mut file = ImportedFile::default();
    let twice = |entry| Problem {
        entry,
        what: "the key comes more than once; the last one counts, as with osqueryd".to_owned(),
    };
    let mut problems: Vec<Problem> = repeated.into_iter().map(twice).collect();
    if fields.contains_key("queries") {
        file.is_pack = true;
        file.packs.push(pack(
            pack_name,
            Entry {
                path: String::new(),
                fields,
                problems: &mut problems,
            },
        ));
    } else {
        whole_config(
            &mut file,
            Entry {
                path: String::new(),
                fields,
                problems: &mut problems,
            },
        );
    }
    file.problems = problems;
    Ok(file)
}

/// serde_json's position is that in the stripped text, which nobody has seen.
fn without_position(message: &str) -> String {
    message
        .rsplit_once(" at line ")
        .map_or(message, |(reason, _)| reason)
        .to_owned()
}

/// Takes a whole config apart into `file`.
pub(super) fn whole_config(file: &mut ImportedFile, mut root: Entry<'_>) {
    let schedule = root.object("schedule");
    file.schedule = queries(schedule, "schedule", root.problems);
    for (name, value) in root.object("packs") {
        match value {
            // "*" holds several packs, each under its name.
            Value::Object(packs) if name == "*" => {
                for (name, value) in packs {
                    file.packs.extend(named_pack(&name, value, root.problems));
                }
            }
            value => file.packs.extend(named_pack(&name, value, root.problems)),
        }
    }
    file.options = root.object("options");
    file.decorators = root.object("decorators");
    file.file_paths = file_paths(&mut root);
    file.extra = root.fields;
}

fn named_pack(name: &str, value: Value, problems: &mut Vec<Problem>) -> Option<ImportedPack> {
    let path = format!("packs.{name}");
    match value {
        Value::Object(fields) => Some(pack(
            name,
            Entry {
                path,
                fields,
                problems,
            },
        )),
        Value::String(file) => {
            let what = format!("the pack lies in another file, {file:?}; import that file too");
            problems.push(Problem { entry: path, what });
            None
        }
        _ => {
            problems.push(Problem {
                entry: path,
                what: "a pack has to be an object; it is left out".to_owned(),
            });
            None
        }
    }
}

fn pack(name: &str, mut entry: Entry<'_>) -> ImportedPack {
    let members = entry.object("queries");
    let path = if entry.path.is_empty() {
        "queries".to_owned()
    } else {
        format!("{}.queries", entry.path)
    };
    ImportedPack {
        name: name.to_owned(),
        description: entry.text("description"),
        target: String::new(),
        platform: entry.text("platform"),
        version: entry.text("version"),
        shard: entry.shard(),
        discovery: entry.texts("discovery"),
        queries: queries(members, &path, entry.problems),
        extra: entry.fields,
    }
}

fn queries(
    members: Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Vec<ImportedQuery> {
    let import = |(name, value): (String, Value)| {
        let path = format!("{path}.{name}");
        let Value::Object(fields) = value else {
            problems.push(Problem {
                entry: path,
                what: "a query has to be an object; it is left out".to_owned(),
            });
            return None;
        };
        query(
            name,
            Entry {
                path,
                fields,
                problems,
            },
        )
    };
    members.into_iter().filter_map(import).collect()
}

fn query(name: String, mut entry: Entry<'_>) -> Option<ImportedQuery> {
    let sql = entry.text("query");
    if sql.trim().is_empty() {
        entry.problem("the query has no SQL; it is left out");
        return None;
    }
    let interval = match entry.whole("interval") {
        Ok(None) => DEFAULT_INTERVAL,
        Ok(Some(interval)) if (1..=i64::from(MAX_INTERVAL)).contains(&interval) => {
            u32::try_from(interval).unwrap_or(DEFAULT_INTERVAL)
        }
        _ => {
            entry.problem("interval is not a whole number from 1 to 604800, osqueryd would skip the query; it is left out");
            return None;
        }
    };
    let blacklist = entry.flag("blacklist", true); // its name before osquery 5.0
    Some(ImportedQuery {
        name,
        sql,
        interval,
        snapshot: entry.flag("snapshot", false),
        removed: entry.flag("removed", true),
        denylist: entry.flag("denylist", blacklist),
        startup_priority: entry.startup_priority(),
        target: String::new(),
        platform: entry.text("platform"),
        version: entry.text("version"),
        shard: entry.shard(),
        description: entry.text("description"),
        value: entry.text("value"),
        extra: entry.fields,
    })
}

/// The categories of `file_paths`, with their exclusions and accesses. An exclusion without a category to exclude from
/// stays in `exclude_paths`, and so in `extra`.
fn file_paths(root: &mut Entry<'_>) -> Vec<ImportedFilePaths> {
    let accesses = root.texts("file_accesses");
    let mut excluded = root.object("exclude_paths");
    let globs = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect()
    };
    let mut categories = Vec::new();
    let mut queries = root.object("file_paths_query");
    for (category, value) in root.object("file_paths") {
        if !value.is_array() {
            root.problems.push(Problem {
                entry: format!("file_paths.{category}"),
                what: "a category has to be a list of paths; it is left out".to_owned(),
            });
            continue;
        }
        categories.push(ImportedFilePaths {
            globs: globs(&value),
            queries: queries
                .remove(&category)
                .as_ref()
                .map(globs)
                .unwrap_or_default(),
            exclude_globs: excluded
                .remove(&category)
                .as_ref()
                .map(globs)
                .unwrap_or_default(),
            file_accesses: accesses.contains(&category),
            category,
        });
    }
    for (category, value) in queries {
        // Only by query.
        categories.push(ImportedFilePaths {
            queries: globs(&value),
            exclude_globs: excluded
                .remove(&category)
                .as_ref()
                .map(globs)
                .unwrap_or_default(),
            file_accesses: accesses.contains(&category),
            category,
            ..ImportedFilePaths::default()
        });
    }
    if !excluded.is_empty() {
        root.fields
            .insert("exclude_paths".to_owned(), Value::Object(excluded));
    }
    categories
}
