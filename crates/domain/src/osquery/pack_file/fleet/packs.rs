//! Packs, and the labels that they are for.

use serde_json::{Map, Value};

use super::super::fields::Entry;
use super::super::{ImportedPack, ImportedQuery, ImportedTag};
use super::documents::Reading;
use super::queries::seconds;
use super::targets::{Labels, Meaning, is_built_in};
use crate::target::Target;

pub(super) struct PackOfFleet {
    pub(super) pack: ImportedPack,
    pub(super) members: Vec<Member>,
}

/// A pack's mention of a query.
pub(super) struct Member {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) fields: Map<String, Value>,
}

impl Reading {
    pub(super) fn pack(&mut self, path: &str, spec: Map<String, Value>) {
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
        let target = target_of(&mut entry, &mut self.labels);
        let pack = ImportedPack {
            target: target.to_text(),
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

    pub(super) fn label(&mut self, path: &str, spec: Map<String, Value>) {
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let name = entry.text("name");
        let path = format!("{path} {name}");
        entry.path.clone_from(&path);
        if entry.text("label_type") == "builtin" || is_built_in(&name) {
            return;
        }
        if name.trim().is_empty() {
            entry.problem("the label has no name; it is left out");
            return;
        }
        let (tag, membership, sql) = (
            self.labels.tag(&name),
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

    pub(super) fn tag(&mut self, tag: ImportedTag) {
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
}

/// Whom a pack is for. Fleet gives a pack without targets to nobody, and so do we.
fn target_of(entry: &mut Entry<'_>, labels: &mut Labels) -> Target {
    let mut targets = entry.object("targets");
    let mut chosen = Vec::new();
    for key in ["labels", "teams"] {
        match labels.list(targets.remove(key).as_ref(), Meaning::Any) {
            Ok(nodes) => chosen.extend(nodes),
            Err(()) => entry.problem(format!(
                "{key} of its targets is no list of names; it is passed over"
            )),
        }
    }
    let is_named = |value: &Value| !matches!(value, Value::Null) && value != &Value::Array(vec![]);
    let has_hosts = ["hosts", "host_ids"]
        .iter()
        .any(|key| targets.get(*key).is_some_and(is_named));
    match (chosen.is_empty(), has_hosts) {
        (true, true) => entry.problem("its targets are single hosts, which are not taken over; it reaches no node here: its target is none"),
        (true, false) => entry.problem("it has no targets, so Fleet gives it to no host; its target is none"),
        (false, true) => entry.problem("single hosts are left out of its target"),
        (false, false) => {}
    }
    Target::any(chosen)
}

/// A query as a pack has it: its own name, interval and flags win.
pub(super) fn member_of(known: &ImportedQuery, mut entry: Entry<'_>) -> ImportedQuery {
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
        Ok(Some(interval)) => seconds(&mut entry, interval),
        Ok(None) => known.interval,
        Err(()) => {
            entry.problem(format!(
                "interval is no whole number; it is {} here, as of the query",
                known.interval
            ));
            known.interval
        }
    };
    query.snapshot = entry.flag("snapshot", false);
    query.removed = entry.flag("removed", true);
    query.denylist = entry.flag("denylist", true);
    query.shard = entry.shard();
    query.target = String::new();
    query
}
