//! Which of the files name which by their path, and for whom. Uploads have lost their folders, so files are told by their own names;
//! where that leaves a doubt, what is in them reaches nobody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::targets::Labels;
use crate::target::Target;

/// Keys of a file of GitOps under which things of osquery's stand.
pub(super) const OF_OSQUERY: [&str; 6] = [
    "queries",
    "reports",
    "policies",
    "labels",
    "agent_options",
    "packs",
];

/// A file's mention of another one.
struct Mention {
    /// In small letters, perhaps with wildcards.
    name: String,
    folder: String,
    whom: Target,
}

/// All mentions, and the files that can be meant.
#[derive(Default)]
pub(super) struct Mentions {
    all: Vec<Mention>,
    /// How many files are called so, in small letters.
    files: BTreeMap<String, usize>,
}

impl Mentions {
    pub(super) fn of(files: &[(&str, Vec<Value>)], labels: &mut Labels) -> Self {
        let mut mentions = Self::default();
        for (name, documents) in files {
            if documents.iter().any(is_part) {
                *mentions.files.entry(split(name).1).or_default() += 1;
            }
            for document in documents {
                mentions.document(document, labels);
            }
        }
        mentions
    }

    fn document(&mut self, document: &Value, labels: &mut Labels) {
        match document {
            Value::Object(fields) if !fields.contains_key("kind") => {
                let whom = match team_of(fields) {
                    None => Target::All,
                    Some(name) if name.is_empty() => Target::None,
                    Some(name) => Target::Tag(labels.tag(&name)),
                };
                for key in OF_OSQUERY {
                    match fields.get(key) {
                        Some(Value::Array(items)) => self.items(items, &whom),
                        Some(Value::Object(item)) => self.item(item, &whom),
                        _ => {}
                    }
                }
            }
            // Fleet's lists name no others; whom it would be for is not known.
            Value::Array(items) => self.items(items, &Target::None),
            _ => {}
        }
    }

    fn items(&mut self, items: &[Value], whom: &Target) {
        for item in items.iter().filter_map(Value::as_object) {
            self.item(item, whom);
        }
    }

    fn item(&mut self, item: &Map<String, Value>, whom: &Target) {
        for path in paths_of(item) {
            let (folder, name) = split(path);
            self.all.push(Mention {
                name,
                folder,
                whom: whom.clone(),
            });
        }
    }

    /// Is what this path names among the files?
    pub(super) fn has(&self, path: &str) -> bool {
        let (_, pattern) = split(path);
        self.files.keys().any(|name| is_like(name, &pattern))
    }

    /// Whom a part is for, as those say that name it; `None` when nobody does.
    ///
    /// # Errors
    /// It cannot be told from another of the same name.
    pub(super) fn whom(&self, file_name: &str) -> Result<Option<Target>, ()> {
        let (_, name) = split(file_name);
        let found: Vec<&Mention> = (self.all.iter())
            .filter(|mention| is_like(&name, &mention.name))
            .collect();
        if found.is_empty() {
            return Ok(None);
        }
        let folders: BTreeSet<&str> = found.iter().map(|found| found.folder.as_str()).collect();
        if folders.len() > 1 || self.files.get(&name).is_some_and(|files| *files > 1) {
            return Err(());
        }
        let whom = found.into_iter().map(|found| found.whom.clone());
        Ok(Some(Target::any(whom)))
    }
}

/// The team of a file of GitOps: all of them have a name, those of no team (`no-team.yml`, `unassigned.yml`) too; `default.yml`
/// alone has none. Empty when it is a team's and does not say which.
pub(super) fn team_of(fields: &Map<String, Value>) -> Option<String> {
    match fields.get("name") {
        None => {
            let is_team = fields.contains_key("team_settings") || fields.contains_key("settings");
            is_team.then(String::new)
        }
        Some(Value::String(name)) => Some(name.trim().to_owned()),
        Some(name @ (Value::Number(_) | Value::Bool(_))) => Some(name.to_string()),
        Some(_) => Some(String::new()),
    }
}

/// Is it something that a file of GitOps may name by its path?
pub(super) fn is_part(document: &Value) -> bool {
    match document {
        Value::Array(_) => true,
        Value::Object(fields) => {
            let is_whole = ["kind", "org_settings"]
                .iter()
                .any(|key| fields.contains_key(*key));
            !is_whole && team_of(fields).is_none()
        }
        _ => false,
    }
}

/// The paths of other files that stand in place of what is meant.
pub(super) fn paths_of(item: &Map<String, Value>) -> Vec<&str> {
    let values = ["path", "paths"].iter().filter_map(|key| item.get(*key));
    values
        .flat_map(|value| match value {
            Value::Array(items) => items.iter().collect(),
            value => vec![value],
        })
        .filter_map(Value::as_str)
        .collect()
}

/// Folder and name of a path in small letters, without the steps upwards.
fn split(path: &str) -> (String, String) {
    let path = path.trim().replace('\\', "/").to_lowercase();
    let mut steps: Vec<&str> = (path.split('/'))
        .filter(|step| !matches!(*step, "" | "." | ".."))
        .collect();
    let name = steps.pop().unwrap_or_default().to_owned();
    (steps.join("/"), name)
}

/// `*` and `?` as in Fleet's `paths`; sets and alternatives are taken for whatever they could mean.
fn is_like(name: &str, pattern: &str) -> bool {
    if pattern.contains(['[', '{']) {
        return true;
    }
    let (name, pattern): (Vec<char>, Vec<char>) =
        (name.chars().collect(), pattern.chars().collect());
    // Rows of what the pattern so far matches: bounded by the product of both lengths.
    let mut row: Vec<bool> = std::iter::once(true)
        .chain(std::iter::repeat_n(false, name.len()))
        .collect();
    for sign in pattern {
        let mut next = vec![sign == '*' && row[0]];
        for (at, letter) in name.iter().enumerate() {
            next.push(match sign {
                '*' => row[at + 1] || next[at],
                '?' => row[at],
                sign => row[at] && sign == *letter,
            });
        }
        row = next;
    }
    row.last().is_some_and(|is_like| *is_like)
}
