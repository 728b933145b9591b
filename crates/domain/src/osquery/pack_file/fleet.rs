//! Fleet's YAML: documents of `fleetctl` (`apiVersion`, `kind`, `spec`), of its GitOps (`queries:`, `policies:`, `reports:`,
//! `labels:`, `agent_options:` at the top), and bare lists as in its `lib/` folder. The shapes are those of Fleet's
//! `docs/Configuration/yaml-files.md` and `docs/Configuration/configuration-files/README.md`.
//!
//! What osquery can be asked becomes queries; what Fleet alone does is named as odd and left out. Secrets in these files are never
//! kept. A document is bounded in depth and size, aliases included.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::Entry;
use super::import::whole_config;
use super::{
    ImportedFile, ImportedPack, ImportedQuery, ImportedTag, MAX_INTERVAL, PackFileError, Problem,
};

/// Where Fleet's policies go.
const POLICIES: &str = "Fleet policies";

/// Seconds between two looks at a policy (`osquery_policy_update_interval` of Fleet's server).
const POLICY_INTERVAL: u32 = 3600;

/// What Fleet's own server makes of a query; osqueryd is not told.
const OF_FLEET: [&str; 22] = [
    "apiVersion",
    "author_email",
    "author_id",
    "author_name",
    "automations_enabled",
    "calendar_event_enabled",
    "calendar_events_enabled",
    "conditional_access_enabled",
    "created_at",
    "discard_data",
    "id",
    "install_software",
    "logging",
    "observer_can_run",
    "purpose",
    "run_script",
    "saved",
    "support",
    "tags",
    "team_id",
    "type",
    "updated_at",
];

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
struct Reading {
    file: ImportedFile,
    /// Queries by name: packs refer to them, also to those that come later.
    queries: Vec<Scheduled>,
    packs: Vec<PackOfFleet>,
    policies: Vec<ImportedQuery>,
    problems: Vec<Problem>,
}

/// A query, and whether Fleet runs it by itself.
struct Scheduled {
    query: ImportedQuery,
    runs: bool,
    path: String,
}

struct PackOfFleet {
    pack: ImportedPack,
    members: Vec<Member>,
}

/// A pack's mention of a query.
struct Member {
    path: String,
    query: String,
    fields: Map<String, Value>,
}

impl Reading {
    fn problem(&mut self, path: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            entry: path.to_owned(),
            what: what.into(),
        });
    }

    fn entry<'p>(
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
        let tag = tag_of(name);
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
            tag_of(name)
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
                query.target = both(&quoted(&team), &query.target);
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

    fn query(&mut self, path: &str, spec: Map<String, Value>) {
        let logging = spec
            .get("logging")
            .and_then(Value::as_str)
            .unwrap_or("snapshot")
            .to_owned();
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let Some(mut query) = query_of(&mut entry) else {
            return;
        };
        let interval = match entry.whole("interval") {
            Ok(interval) => interval.unwrap_or(0),
            Err(()) => {
                entry.problem(
                    "interval is no whole number; the query is taken for one without schedule",
                );
                0
            }
        };
        query.snapshot = logging == "snapshot";
        query.removed = logging != "differential_ignore_removals";
        query.interval = seconds(interval);
        keep_rest(&mut query, entry);
        let name = query.name.clone();
        self.queries.push(Scheduled {
            query,
            runs: interval > 0,
            path: format!("{path} {name}"),
        });
    }

    fn policy(&mut self, path: &str, spec: Map<String, Value>) {
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let Some(mut query) = query_of(&mut entry) else {
            return;
        };
        let resolution = entry.text("resolution");
        if !resolution.trim().is_empty() {
            query.description = format!(
                "{}\n\nResolution: {}",
                query.description.trim(),
                resolution.trim()
            );
        }
        let critical = entry.flag("critical", false);
        query.value = format!(
            "Fleet policy{}: a row means that the node passes, none that it fails.",
            if critical { " (critical)" } else { "" }
        );
        query.snapshot = true;
        query.interval = POLICY_INTERVAL;
        keep_rest(&mut query, entry);
        self.policies.push(query);
    }

    fn pack(&mut self, path: &str, spec: Map<String, Value>) {
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let name = entry.text("name");
        let path = format!("{path} {name}");
        entry.path.clone_from(&path);
        if name.trim().is_empty() {
            entry.problem("the pack has no name; it is left out");
            return;
        }
        if entry.flag("disabled", false) {
            entry.problem("the pack is disabled in Fleet; it is left out");
            return;
        }
        let mut targets = entry.object("targets");
        let mut wanted = labels(targets.remove("labels").as_ref());
        wanted.extend(labels(targets.remove("teams").as_ref()));
        if let Some(Value::Array(hosts)) = targets
            .remove("hosts")
            .filter(|hosts| hosts != &Value::Array(Vec::new()))
        {
            entry.problem(format!(
                "single hosts ({}) are left out of its target",
                hosts.len()
            ));
        }
        let pack = ImportedPack {
            target: any_of(&wanted),
            description: entry.text("description"),
            platform: entry.text("platform"),
            version: entry.text("version"),
            shard: entry.shard(),
            name,
            ..ImportedPack::default()
        };
        let members = match entry.fields.remove("queries") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let members = members.into_iter().enumerate().filter_map(|(index, item)| {
            let Value::Object(mut fields) = item else {
                return None;
            };
            let query = fields
                .remove("query")
                .or_else(|| fields.get("name").cloned());
            Some(Member {
                path: format!("{path}, queries[{index}]"),
                query: query?.as_str()?.to_owned(),
                fields,
            })
        });
        let members = members.collect();
        self.packs.push(PackOfFleet { pack, members });
    }

    fn label(&mut self, path: &str, spec: Map<String, Value>) {
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let name = entry.text("name");
        let path = format!("{path} {name}");
        entry.path.clone_from(&path);
        if name.trim().is_empty() || entry.text("label_type") == "builtin" {
            return;
        }
        let (tag, membership, sql) = (
            tag_of(&name),
            entry.text("label_membership_type"),
            entry.text("query"),
        );
        let mut hosts = entry.texts("hosts");
        if hosts.is_empty() {
            hosts = entry.texts("host_identifiers");
        }
        let description = entry.text("description");
        if membership == "manual" || (sql.trim().is_empty() && !hosts.is_empty()) {
            if tag != name {
                entry.problem(format!("the label is called {tag} here"));
            }
        } else if sql.trim().is_empty() {
            entry.problem(format!(
                "a label by {} has no counterpart; the tag {tag} is made, give it to nodes by hand",
                if membership.is_empty() {
                    "vitals"
                } else {
                    &membership
                }
            ));
        } else {
            entry.problem(format!("a dynamic label has no counterpart; the tag {tag} is made, give it to nodes by hand. Its SQL: {sql}"));
        }
        self.tag(ImportedTag {
            name: tag,
            description,
            hosts,
        });
    }

    fn tag(&mut self, tag: ImportedTag) {
        match self
            .file
            .tags
            .iter_mut()
            .find(|known| known.name == tag.name)
        {
            Some(known) => known.hosts.extend(tag.hosts),
            None => self.file.tags.push(tag),
        }
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

/// What queries and policies have in common.
fn query_of(entry: &mut Entry<'_>) -> Option<ImportedQuery> {
    let name = entry.text("name");
    entry.path = format!("{} {name}", entry.path);
    let sql = entry.text("query");
    if name.trim().is_empty() || sql.trim().is_empty() {
        entry.problem("it has no name or no SQL; it is left out");
        return None;
    }
    let team = entry.text("team");
    let (include_any, include_all, exclude_any) = (
        labels(entry.fields.remove("labels_include_any").as_ref()),
        labels(entry.fields.remove("labels_include_all").as_ref()),
        labels(entry.fields.remove("labels_exclude_any").as_ref()),
    );
    let mut target = if team.trim().is_empty() {
        String::new()
    } else {
        quoted(&tag_of(&team))
    };
    target = both(&target, &any_of(&include_any));
    for tag in include_all {
        target = both(&target, &quoted(&tag));
    }
    for tag in exclude_any {
        target = both(&target, &format!("not {}", quoted(&tag)));
    }
    Some(ImportedQuery {
        name,
        sql: sql.trim().to_owned(),
        removed: true,
        denylist: true,
        target,
        platform: entry.text("platform"),
        version: entry.text("min_osquery_version"),
        description: entry.text("description"),
        ..ImportedQuery::default()
    })
}

/// What Fleet's server does by itself is dropped; what nobody knows is kept.
fn keep_rest(query: &mut ImportedQuery, mut entry: Entry<'_>) {
    entry
        .fields
        .retain(|key, value| !OF_FLEET.contains(&key.as_str()) && !value.is_null());
    query.extra = entry.fields;
}

/// A query as a pack has it: its own name, interval and flags win.
fn member_of(known: &ImportedQuery, mut entry: Entry<'_>) -> ImportedQuery {
    let mut query = known.clone();
    let either = |own: String, other: &str| {
        if own.is_empty() {
            other.to_owned()
        } else {
            own
        }
    };
    query.name = either(entry.text("name"), &known.name);
    query.platform = either(entry.text("platform"), &known.platform);
    query.version = either(entry.text("version"), &known.version);
    query.description = either(entry.text("description"), &known.description);
    query.interval = match entry.whole("interval") {
        Ok(Some(interval)) => seconds(interval),
        _ => known.interval,
    };
    query.snapshot = entry.flag("snapshot", false);
    query.removed = entry.flag("removed", true);
    query.denylist = entry.flag("denylist", true);
    query.shard = entry.shard();
    query.target = String::new();
    query
}

fn seconds(interval: i64) -> u32 {
    u32::try_from(interval.clamp(1, i64::from(MAX_INTERVAL))).unwrap_or(MAX_INTERVAL)
}

/// Names of labels as tags; Fleet's label of all hosts narrows nothing.
fn labels(value: Option<&Value>) -> Vec<String> {
    let names = value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    names
        .filter(|name| *name != "All Hosts")
        .map(tag_of)
        .collect()
}

fn any_of(tags: &[String]) -> String {
    let quoted: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
    quoted.join(" or ")
}

/// Both expressions at once; an empty one chooses every node.
fn both(one: &str, other: &str) -> String {
    let bracketed = |text: &str| {
        if text.contains(" or ") {
            format!("({text})")
        } else {
            text.to_owned()
        }
    };
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.to_owned(),
        (_, true) => one.to_owned(),
        _ => format!("{} and {}", bracketed(one), bracketed(other)),
    }
}

/// A name with blanks and the like as a tag: letters, digits, `-`, `_` and `.`.
fn tag_of(name: &str) -> String {
    let mut tag = String::new();
    for character in name.trim().chars() {
        if character.is_alphanumeric() || "-_.".contains(character) {
            tag.push(character);
        } else if !tag.ends_with('-') {
            tag.push('-');
        }
    }
    tag.trim_matches('-').to_owned()
}

/// A tag as it stands in an expression, also when it looks like a word of it.
fn quoted(tag: &str) -> String {
    if ["and", "or", "not", "none"]
        .iter()
        .any(|word| tag.eq_ignore_ascii_case(word))
    {
        format!("\"tag:{tag}\"")
    } else {
        tag.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEETCTL: &str = include_str!("../../../../../tests/fixtures/moving/fleetctl.yml");
    const GITOPS: &str = include_str!("../../../../../tests/fixtures/moving/gitops.yml");

    fn names(queries: &[ImportedQuery]) -> Vec<&str> {
        queries.iter().map(|query| query.name.as_str()).collect()
    }

    fn said(file: &ImportedFile, words: &str) -> bool {
        file.problems
            .iter()
            .any(|problem| format!("{}: {}", problem.entry, problem.what).contains(words))
    }

    #[test]
    fn documents_of_fleetctl_become_queries_packs_and_tags() {
        let file = parse_yaml(FLEETCTL, "all.yml").unwrap();
        assert_eq!(
            names(&file.schedule),
            ["USB drives", "Failed logins of the lab"]
        );
        let usb = &file.schedule[0];
        assert!(
            !usb.snapshot && usb.removed && usb.interval == 86_400,
            "{usb:?}"
        );
        assert_eq!(
            (usb.platform.as_str(), usb.version.as_str()),
            ("darwin,windows", "5.4.0")
        );
        assert!(
            usb.sql.starts_with("SELECT action") && usb.extra.is_empty(),
            "{usb:?}"
        );
        assert_eq!(file.schedule[1].target, "Lab-machines");
        assert!(file.schedule[1].snapshot);
        let packs: Vec<&str> = file.packs.iter().map(|pack| pack.name.as_str()).collect();
        assert_eq!(packs, ["it", "Fleet policies"]);
        assert_eq!(file.packs[0].target, "servers or Lab-machines");
        assert_eq!(names(&file.packs[0].queries), ["serials", "USB drives"]);
        assert_eq!(file.packs[0].queries[0].interval, 600);
        let policy = &file.packs[1].queries[0];
        assert!(
            policy.snapshot
                && policy
                    .description
                    .ends_with("Resolution: Turn on FileVault.")
        );
        assert!(
            policy.value.contains("critical") && policy.extra.is_empty(),
            "{policy:?}"
        );
        let tags: Vec<_> = file
            .tags
            .iter()
            .map(|tag| (tag.name.as_str(), tag.hosts.len()))
            .collect();
        assert_eq!(
            tags,
            [
                ("servers", 2),
                ("slack-not-running", 0),
                ("Lab-machines", 0)
            ]
        );
        for words in [
            "Its SQL: SELECT 1",
            "on demand only",
            "enroll secrets",
            "no query called \"nowhere\"",
            "overrides",
            "user_roles",
        ] {
            assert!(said(&file, words), "{words}: {:?}", file.problems);
        }
        assert_eq!(file.options["logger_tls_period"], 10);
        assert_eq!(
            file.decorators["load"][0],
            "SELECT uuid AS host_uuid FROM system_info;"
        );
        assert!(
            !format!("{file:?}").contains("not-to-be-kept"),
            "a secret was kept"
        );
    }

    #[test]
    fn gitops_files_become_queries_for_the_nodes_they_are_for() {
        let file = parse_yaml(GITOPS, "workstations.yml").unwrap();
        let targets: Vec<_> = file
            .schedule
            .iter()
            .map(|query| (query.name.as_str(), query.target.as_str()))
            .collect();
        assert_eq!(
            targets,
            [
                (
                    "Failed logins",
                    "Workstations and (Engineering or Customer-Support)"
                ),
                ("Sockets", "Workstations and not Kiosks"),
                ("Disk encryption", "Workstations"),
            ]
        );
        for words in [
            "another file, \"../lib/more.queries.yml\"",
            "the team Workstations becomes the tag",
            "software",
        ] {
            assert!(said(&file, words), "{words}: {:?}", file.problems);
        }
        assert_eq!(
            file.tags
                .iter()
                .find(|tag| tag.name == "Kiosks")
                .unwrap()
                .hosts,
            ["kiosk-1"]
        );
    }

    #[test]
    fn bare_lists_are_told_by_the_name_of_their_file() {
        let text = "- name: a\n  query: SELECT 1\n  interval: 60\n";
        assert_eq!(
            names(&parse_yaml(text, "x.queries.yml").unwrap().schedule),
            ["a"]
        );
        assert_eq!(
            names(&parse_yaml(text, "x.policies.yml").unwrap().packs[0].queries),
            ["a"]
        );
        assert_eq!(
            parse_yaml(
                "config:\n  options:\n    read_max: 5\n",
                "agent-options.yml"
            )
            .unwrap()
            .options["read_max"],
            5
        );
    }

    #[test]
    fn what_is_no_yaml_or_too_much_of_it_is_refused_with_its_line() {
        let bomb: String = (1..9)
            .map(|n| {
                format!(
                    "l{n}: &l{n} [{}]\n",
                    vec![format!("*l{}", n - 1); 9].join(",")
                )
            })
            .collect();
        for (text, line) in [
            ("a:\n\t- b", 2),
            ("kind: query\nspec: [", 2),
            ("a: 1\na: 2\n", 2),
            (&format!("l0: &l0 [x]\n{bomb}") as &str, 7),
            (&"[".repeat(5000) as &str, 1),
        ] {
            match parse_yaml(text, "x.yml") {
                Err(PackFileError::Syntax { line: at, reason }) => {
                    assert!(
                        at <= line && !reason.is_empty() && !reason.contains('\n'),
                        "{at} {reason}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            parse_yaml("---\n---\n", "x.yml"),
            Err(PackFileError::Nothing)
        );
        assert_eq!(
            parse_yaml("just words", "x.yml"),
            Err(PackFileError::NotAnObject)
        );
    }
}
