//! What documents there are, and what of Fleet's each is about.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::fields::Entry;
use super::super::import::whole_config;
use super::super::{
    ImportedFile, ImportedPack, ImportedQuery, ImportedTag, PackFileError, Problem,
};
use super::packs::{PackOfFleet, member_of};
use super::targets::Labels;
use crate::target::Target;

/// Where Fleet's policies go.
const POLICIES: &str = "Fleet policies";

/// Reads the text of a YAML file of Fleet's. `file_name` tells what a bare list is of.
///
/// # Errors
/// It is no YAML, too large or too deep, or holds nothing that could be meant.
pub fn parse_yaml(text: &str, file_name: &str) -> Result<ImportedFile, PackFileError> {
    let mut reading = Reading::default();
    for (index, document) in documents(text)?.into_iter().enumerate() {
        let path = format!("document {}", index + 1);
        match document {
            Value::Null => {}
            Value::Array(items) => reading.bare_list(&path, items, file_name),
            Value::Object(fields) => reading.document(&path, fields),
            _ => return Err(PackFileError::NotAnObject),
        }
    }
    reading.finish()
}

fn documents(text: &str) -> Result<Vec<Value>, PackFileError> {
    let budget = serde_saphyr::budget! {
        max_depth: 32,
        max_nodes: 100_000,
        max_events: 400_000,
        max_documents: 2_000,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_total_scalar_bytes: 8 * 1024 * 1024,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text.trim_start_matches('\u{FEFF}'), options).map_err(
        |error| {
            let line = error.location().map_or(1, |location| location.line());
            let words = error.without_snippet().to_string();
            let reason = words.lines().next().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            let reason = reason.split_once(": ").map_or(reason, |(position, rest)| {
                if position.starts_with("line ") {
                    rest
                } else {
                    reason
                }
            });
            PackFileError::Syntax {
                line: usize::try_from(line).unwrap_or(1),
                reason: reason.to_owned(),
            }
        },
    )
}

/// What was read so far.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) file: ImportedFile,
    /// Queries by name: packs refer to them, also to those that come later.
    pub(super) queries: Vec<Scheduled>,
    pub(super) packs: Vec<PackOfFleet>,
    pub(super) policies: Vec<ImportedQuery>,
    pub(super) problems: Vec<Problem>,
    pub(super) labels: Labels,
}

/// A query, and whether Fleet runs it by itself.
pub(super) struct Scheduled {
    pub(super) query: ImportedQuery,
    pub(super) runs: bool,
    pub(super) path: String,
}

impl Reading {
    pub(super) fn problem(&mut self, path: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            entry: path.to_owned(),
            what: what.into(),
        });
    }

    pub(super) fn entry<'p>(
        problems: &'p mut Vec<Problem>,
        path: &str,
        fields: Map<String, Value>,
    ) -> Entry<'p> {
        Entry {
            path: path.to_owned(),
            fields,
            problems,
        }
    }

    fn document(&mut self, path: &str, mut fields: Map<String, Value>) {
        let kind = fields
            .get("kind")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        let Some(kind) = kind else {
            self.gitops(path, fields);
            return;
        };
        let path = format!("{path}, {kind}");
        let spec = match fields.remove("spec") {
            Some(Value::Object(spec)) => spec,
            Some(Value::Array(specs)) => {
                for spec in specs {
                    if let Value::Object(spec) = spec {
                        self.spec(&kind, &path, spec);
                    }
                }
                return;
            }
            _ => {
                self.problem(&path, "it has no spec; it is left out");
                return;
            }
        };
        self.spec(&kind, &path, spec);
    }

    fn spec(&mut self, kind: &str, path: &str, mut spec: Map<String, Value>) {
        match kind {
            "query" | "report" => self.query(path, spec),
            "policy" => self.policy(path, spec),
            "pack" => self.pack(path, spec),
            "label" => self.label(path, spec),
            "config" => self.agent_options(path, spec.remove("agent_options")),
            "team" | "fleet" => {
                let mut team = match spec.remove("team").or_else(|| spec.remove("fleet")) {
                    Some(Value::Object(team)) => team,
                    _ => spec,
                };
                self.team(path, &team);
                if team.remove("agent_options").is_some() {
                    self.problem(path, "agent_options of a team are left out; import them in a file of their own, with the team's tag as target");
                }
            }
            "enroll_secret" => self.problem(
                path,
                "enroll secrets are left out; store them by `create-enroll-secret --secret-stdin`",
            ),
            _ => self.problem(path, "this kind has no place here; it is left out"),
        }
    }

    /// A team becomes a tag. Who belongs to it, these files do not say.
    fn team(&mut self, path: &str, team: &Map<String, Value>) {
        let Some(name) = team.get("name").and_then(Value::as_str) else {
            return;
        };
        let tag = self.labels.tag(name);
        self.problem(path, format!("the team {name} becomes the tag {tag}; give it to its nodes, or to its enroll secret"));
        self.tag(ImportedTag {
            name: tag,
            description: format!("Fleet's team {name}"),
            hosts: Vec::new(),
        });
        if team.contains_key("secrets") {
            self.problem(
                path,
                "enroll secrets are left out; store them by `create-enroll-secret --secret-stdin`",
            );
        }
    }

    fn gitops(&mut self, path: &str, mut fields: Map<String, Value>) {
        let known = [
            "name",
            "queries",
            "reports",
            "policies",
            "labels",
            "agent_options",
            "packs",
        ];
        // A file with agent options alone begins with what is under that key.
        if fields.get("config").is_some_and(Value::is_object)
            && !fields.keys().any(|key| known.contains(&key.as_str()))
        {
            self.agent_options(path, Some(Value::Object(fields)));
            return;
        }
        let is_team = fields.contains_key("team_settings") || fields.contains_key("settings");
        let team = fields
            .remove("name")
            .and_then(|name| name.as_str().map(ToOwned::to_owned));
        let team_target = team.as_deref().filter(|_| is_team).map(|name| {
            let only_name = Map::from_iter([("name".to_owned(), Value::from(name))]);
            self.team(path, &only_name);
            self.labels.tag(name)
        });
        let before = (self.queries.len(), self.policies.len());
        for (key, value) in fields {
            let path = format!("{path}, {key}");
            match (key.as_str(), value) {
                (_, Value::Null) => {}
                ("queries" | "reports", Value::Array(items)) => self.items("query", &path, items),
                ("policies", Value::Array(items)) => self.items("policy", &path, items),
                ("labels", Value::Array(items)) => self.items("label", &path, items),
                ("packs", Value::Array(items)) => self.items("pack", &path, items),
                ("agent_options", options) if team_target.is_none() => self.agent_options(&path, Some(options)),
                ("agent_options", _) => self.problem(&path, "agent_options of a team are left out; import them in a file of their own, with the team's tag as target"),
                _ => self.problem(&path, "this has no place here; it is left out"),
            }
        }
        if let Some(team) = team_target {
            let queries = self.queries[before.0..]
                .iter_mut()
                .map(|scheduled| &mut scheduled.query);
            for query in queries.chain(&mut self.policies[before.1..]) {
                let own = Target::parse(&query.target).unwrap_or(Target::None);
                query.target = Target::Tag(team.clone()).and(own).to_text();
            }
        }
    }

    fn items(&mut self, kind: &str, path: &str, items: Vec<Value>) {
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Object(spec) => {
                    if let Some(file) = spec
                        .get("path")
                        .or_else(|| spec.get("paths"))
                        .and_then(Value::as_str)
                    {
                        self.problem(
                            &path,
                            format!("this lies in another file, {file:?}; import that file too"),
                        );
                    } else {
                        self.spec(kind, &path, spec);
                    }
                }
                _ => self.problem(&path, "this has to be an object; it is left out"),
            }
        }
    }

    /// A list without a name is told by the file's name, else by its first item.
    fn bare_list(&mut self, path: &str, items: Vec<Value>, file_name: &str) {
        let name = file_name.to_lowercase();
        let has = |key: &str| items.iter().any(|item| item.get(key).is_some());
        let kind = if name.contains("label") || has("label_membership_type") {
            "label"
        } else if name.contains("polic") || has("resolution") || has("critical") {
            "policy"
        } else {
            "query"
        };
        self.items(kind, path, items);
    }

    fn agent_options(&mut self, path: &str, options: Option<Value>) {
        let mut options = match options {
            None | Some(Value::Null) => return,
            Some(Value::Object(options)) => options,
            Some(_) => {
                return self.problem(
                    path,
                    "agent_options have to be an object; they are left out",
                );
            }
        };
        if let Some(file) = options.get("path").and_then(Value::as_str) {
            return self.problem(
                path,
                format!("these lie in another file, {file:?}; import that file too"),
            );
        }
        if let Some(Value::Object(config)) = options.remove("config") {
            let mut found = ImportedFile::default();
            whole_config(&mut found, Self::entry(&mut self.problems, "", config));
            let file = &mut self.file;
            file.packs.append(&mut found.packs);
            file.schedule.append(&mut found.schedule);
            file.file_paths.append(&mut found.file_paths);
            file.options.append(&mut found.options);
            file.decorators.append(&mut found.decorators);
            file.extra.append(&mut found.extra);
        }
        for (key, value) in options {
            let is_empty = match &value {
                Value::Null => true,
                Value::Object(members) => members.is_empty(),
                _ => false,
            };
            if !is_empty {
                self.problem(
                    &format!("{path}, {key}"),
                    "this is no part of a config that osqueryd takes; it is left out",
                );
            }
        }
    }

    fn finish(mut self) -> Result<ImportedFile, PackFileError> {
        let by_name: BTreeMap<String, ImportedQuery> = (self.queries.iter())
            .map(|scheduled| (scheduled.query.name.clone(), scheduled.query.clone()))
            .collect();
        let mut named = Vec::new();
        for PackOfFleet { mut pack, members } in self.packs {
            for member in members {
                let Some(known) = by_name.get(&member.query) else {
                    self.problems.push(Problem {
                        entry: member.path,
                        what: format!(
                            "there is no query called {:?} in these files; it is left out",
                            member.query
                        ),
                    });
                    continue;
                };
                named.push(member.query);
                let entry = Self::entry(&mut self.problems, &member.path, member.fields);
                pack.queries.push(member_of(known, entry));
            }
            self.file.packs.push(pack);
        }
        if !self.policies.is_empty() {
            self.file.packs.push(ImportedPack {
                name: POLICIES.to_owned(),
                description: "Policies of Fleet as snapshot queries".to_owned(),
                ..ImportedPack::default()
            });
        }
        for scheduled in self.queries {
            if scheduled.runs {
                self.file.schedule.push(scheduled.query);
            } else if !named.contains(&scheduled.query.name) {
                self.problems.push(Problem {
                    entry: scheduled.path,
                    what:
                        "the query has no interval, so Fleet runs it on demand only; it is left out"
                            .to_owned(),
                });
            }
        }
        put_policies(&mut self.file, self.policies);
        self.labels.finish(&mut self.file.tags, &mut self.problems);
        self.file.problems = self.problems;
        if self.file == ImportedFile::default() {
            return Err(PackFileError::Nothing);
        }
        Ok(self.file)
    }
}

/// Policies for all nodes go into one pack. A pack has one target, so those with a narrower one stand in the schedule.
fn put_policies(file: &mut ImportedFile, policies: Vec<ImportedQuery>) {
    for policy in policies {
        let pack = file.packs.iter_mut().find(|pack| pack.name == POLICIES);
        match pack {
            Some(pack) if policy.target.is_empty() => pack.queries.push(policy),
            _ => file.schedule.push(policy),
        }
    }
    file.packs
        .retain(|pack| pack.name != POLICIES || !pack.queries.is_empty());
}
