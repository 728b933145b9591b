//! What documents there are, and what of Fleet's each is about.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::fields::Entry;
use super::super::{
    ImportedFile, ImportedPack, ImportedQuery, ImportedTag, PackFileError, Problem,
};
use super::mentions::{Mentions, OF_OSQUERY, is_part, paths_of, team_of};
use super::packs::{PackOfFleet, member_of};
use super::targets::Labels;
use crate::target::Target;

/// Where Fleet's policies go.
const POLICIES: &str = "Fleet policies";

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
    pub(super) mentions: Mentions,
    /// Whom what is being read is for, if another file says so.
    pub(super) whom: Option<Target>,
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

    /// Reads the documents of one file, of several or the only one.
    pub(super) fn documents(&mut self, name: &str, documents: Vec<Value>, is_one_of_several: bool) {
        let place = if is_one_of_several {
            format!("{name}, ")
        } else {
            String::new()
        };
        let of_parts = if documents.iter().any(is_part) {
            self.whom_of_parts(name)
        } else {
            None
        };
        for (index, document) in documents.into_iter().enumerate() {
            let path = format!("{place}document {}", index + 1);
            self.whom = of_parts.clone().filter(|_| is_part(&document));
            let before = self.before();
            match document {
                Value::Array(items) => {
                    self.bare_list(&path, items, name);
                    if let Some(whom) = self.whom.clone() {
                        self.narrow(before, &whom);
                    }
                }
                Value::Object(fields) => self.document(&path, fields),
                _ => {}
            }
        }
        self.whom = None;
    }

    /// Whom a file is for that others name by its path.
    fn whom_of_parts(&mut self, name: &str) -> Option<Target> {
        let (whom, what) = match self.mentions.whom(name) {
            Ok(None | Some(Target::All)) => return None,
            Ok(Some(Target::None)) => (
                Target::None,
                "for whom it is cannot be told from the file that names it; its queries reach no node: their target is none".to_owned(),
            ),
            Ok(Some(whom)) => {
                let what = format!("it is for {}, as the files say that name it", whom.to_text());
                (whom, what)
            }
            Err(()) => (
                Target::None,
                "files of several folders are called so, and which one is meant is not known; its queries reach no node: their target is none".to_owned(),
            ),
        };
        self.problem(name, what);
        Some(whom)
    }

    fn before(&self) -> [usize; 3] {
        [self.queries.len(), self.policies.len(), self.packs.len()]
    }

    /// Narrows what was read since then.
    fn narrow(&mut self, [queries, policies, packs]: [usize; 3], whom: &Target) {
        let queries = self.queries[queries..].iter_mut();
        let queries = queries.map(|scheduled| &mut scheduled.query.target);
        let policies = self.policies[policies..].iter_mut();
        let policies = policies.map(|policy| &mut policy.target);
        let packs = self.packs[packs..].iter_mut();
        let packs = packs.map(|known| &mut known.pack.target);
        for target in queries.chain(policies).chain(packs) {
            let own = Target::parse(target).unwrap_or(Target::None);
            *target = whom.clone().and(own).to_text();
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
        // A file with agent options alone begins with what is under that key.
        if fields.get("config").is_some_and(Value::is_object)
            && !fields.contains_key("name")
            && !fields.keys().any(|key| OF_OSQUERY.contains(&key.as_str()))
        {
            self.agent_options(path, Some(Value::Object(fields)));
            return;
        }
        let team = team_of(&fields);
        fields.remove("name");
        if let Some(name) = team {
            self.whom = Some(self.team_of_file(path, &name));
        }
        let before = self.before();
        for (key, value) in fields {
            let path = format!("{path}, {key}");
            match (key.as_str(), value) {
                (_, Value::Null) => {}
                ("queries" | "reports", Value::Array(items)) => self.items("query", &path, items),
                ("policies", Value::Array(items)) => self.items("policy", &path, items),
                ("labels", Value::Array(items)) => self.items("label", &path, items),
                ("packs", Value::Array(items)) => self.items("pack", &path, items),
                ("agent_options", options) => self.agent_options(&path, Some(options)),
                _ => self.problem(&path, "this has no place here; it is left out"),
            }
        }
        if let Some(whom) = self.whom.clone() {
            self.narrow(before, &whom);
        }
    }

    fn team_of_file(&mut self, path: &str, name: &str) -> Target {
        if name.is_empty() {
            self.problem(
                path,
                "the file does not say its team's name; its queries reach no node: their target is none",
            );
            return Target::None;
        }
        let only_name = Map::from_iter([("name".to_owned(), Value::from(name))]);
        self.team(path, &only_name);
        Target::Tag(self.labels.tag(name))
    }

    fn items(&mut self, kind: &str, path: &str, items: Vec<Value>) {
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Object(spec) => {
                    let paths: Vec<String> =
                        paths_of(&spec).into_iter().map(ToOwned::to_owned).collect();
                    if paths.is_empty() {
                        self.spec(kind, &path, spec);
                    }
                    for file in paths {
                        self.elsewhere(&path, &file);
                    }
                }
                _ => self.problem(&path, "this has to be an object; it is left out"),
            }
        }
    }

    pub(super) fn elsewhere(&mut self, path: &str, file: &str) {
        if !self.mentions.has(file) {
            self.problem(
                path,
                format!("this lies in another file, {file:?}; import both at once, so that it reaches whom it is for"),
            );
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

    /// What all files hold together.
    ///
    /// # Errors
    /// Nothing.
    pub(super) fn finish(mut self) -> Result<ImportedFile, PackFileError> {
        let by_name: BTreeMap<String, ImportedQuery> = (self.queries.iter())
            .map(|scheduled| (scheduled.query.name.clone(), scheduled.query.clone()))
            .collect();
        let mut named = BTreeSet::new();
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
                named.insert(member.query);
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
