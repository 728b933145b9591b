//! Why a node's config is what it is: which part contributed what, what was left out and why, and what differs between two documents.
//!
//! What is sent is asked of the same selection that [`assemble`](Parts::assemble) writes; nothing is decided a second time here.

use serde_json::Value;
use uuid::Uuid;

use super::conditions::{in_shard, takes_platform, takes_version};
use super::select::Chosen;
use super::{LeftoverKind, Pack, Parts, Query, flags};
use crate::node::NodeFacts;

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stands in the document, and the node heeds it as far as can be told.
    Sent,
    /// It stands in the document, but osqueryd will not run it here; says why.
    NotRun(String),
    /// It does not stand in the document; says why.
    LeftOut(String),
}

/// A part, as seen from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// `pack`, `query`, `file path`, `decorator`, `option`, `pack option`, `section` or `leftover`.
    pub kind: &'static str,
    /// What people call it; a query of a pack as `pack/query`.
    pub name: String,
    /// Which; of a query or an option in a pack the pack's.
    pub id: Option<Uuid>,
    /// The tag expression that decided; empty for every node.
    pub target: String,
    /// What became of it.
    pub fate: Fate,
}

impl Parts {
    /// Every part and what becomes of it on a node. Call it on [`sorted`](Self::sorted) parts.
    #[must_use]
    pub fn explain(&self, node: &NodeFacts) -> Vec<Contribution> {
        let selection = self.select(node);
        let chosen = self.chosen(&selection);
        let mut found = Vec::new();
        for pack in &self.packs {
            let is_sent = is_in(&chosen.packs, pack);
            self::pack(pack, is_sent, node, &mut found);
        }
        for query in &self.queries {
            let fate = fate(is_in(&chosen.queries, query), query.enabled, || {
                not_run(&query.platform, &query.version, query.shard, node)
            });
            found.push(part(
                "query",
                &query.name,
                query.id.0,
                query.target.as_str(),
                fate,
            ));
        }
        for (path, is_chosen) in &chosen.file_paths {
            let fate = fate(*is_chosen, path.enabled, || None);
            found.push(part(
                "file path",
                &path.category,
                path.id.0,
                path.target.as_str(),
                fate,
            ));
        }
        for each in &self.decorators {
            let fate = fate(is_in(&chosen.decorators, each), each.enabled, || None);
            found.push(part(
                "decorator",
                &each.name,
                each.id.0,
                each.target.as_str(),
                fate,
            ));
        }
        for option in &self.options {
            let winner = (chosen.options.iter().rev()).find(|other| other.name == option.name);
            let fate = match winner {
                _ if !is_in(&chosen.options, option) => fate(false, true, || None),
                _ if option.name == "pack_delimiter" => {
                    Fate::LeftOut("the delimiter is always \"/\"".to_owned())
                }
                Some(winner) if !std::ptr::eq(*winner, option) => Fate::LeftOut(format!(
                    "another value for {} wins, with priority {} over {}",
                    said(winner.target.as_str()),
                    winner.priority,
                    option.priority
                )),
                _ => option_fate(&option.name, node),
            };
            let name = format!("{} = {}", option.name, option.value);
            found.push(part(
                "option",
                &name,
                option.id.0,
                option.target.as_str(),
                fate,
            ));
        }
        for pack in &chosen.packs {
            options_of_pack(pack, &chosen, node, &mut found);
        }
        for section in &self.sections {
            let fate = fate(is_in(&chosen.sections, section), section.enabled, || None);
            let name = format!("{}/{}", section.key, section.name);
            found.push(part(
                "section",
                &name,
                section.id.0,
                section.target.as_str(),
                fate,
            ));
        }
        for leftover in &self.leftovers {
            let is_sent = chosen
                .leftovers
                .contains(&(leftover.kind, leftover.name.as_str()));
            let packs = chosen.packs.iter().filter(|pack| pack.is_for(node));
            let of_packs = packs.flat_map(|pack| pack.options());
            let overridden = leftover.kind == LeftoverKind::Option
                && (chosen.options.iter().map(|option| option.name.as_str()))
                    .chain(of_packs.map(|(name, _)| name))
                    .any(|name| name == leftover.name);
            let fate = if overridden {
                Fate::LeftOut("an option of this name is sent".to_owned())
            } else {
                fate(is_sent, true, || None)
            };
            let what = match leftover.kind {
                LeftoverKind::Option => format!("default of {}", leftover.name),
                LeftoverKind::ExcludePaths => format!("no exclusions of {}", leftover.name),
            };
            found.push(Contribution {
                kind: "leftover",
                name: what,
                id: None,
                target: leftover.target.as_str().to_owned(),
                fate,
            });
        }
        found
    }
}

fn is_in<T>(chosen: &[&T], part: &T) -> bool {
    chosen.iter().any(|each| std::ptr::eq(*each, part))
}

fn said(target: &str) -> String {
    if target.trim().is_empty() {
        "every node".to_owned()
    } else {
        format!("\"{target}\"")
    }
}

fn part(kind: &'static str, name: &str, id: Uuid, target: &str, fate: Fate) -> Contribution {
    Contribution {
        kind,
        name: name.to_owned(),
        id: Some(id),
        target: target.to_owned(),
        fate,
    }
}

fn fate(is_sent: bool, enabled: bool, not_run: impl FnOnce() -> Option<String>) -> Fate {
    if is_sent {
        not_run().map_or(Fate::Sent, Fate::NotRun)
    } else if enabled {
        Fate::LeftOut("its target does not choose this node".to_owned())
    } else {
        Fate::LeftOut("it is disabled".to_owned())
    }
}

fn pack(pack: &Pack, is_sent: bool, node: &NodeFacts, found: &mut Vec<Contribution>) {
    let of_pack = not_run(&pack.platform, &pack.version, pack.shard, node);
    let target = pack.target.as_str();
    let own = fate(is_sent, pack.enabled, || of_pack.clone());
    found.push(part("pack", &pack.name, pack.id.0, target, own));
    if !is_sent {
        return;
    }
    for query in &pack.queries {
        let fate = if query.enabled {
            let why = of_pack
                .as_ref()
                .map(|why| format!("its pack does not run: {why}"));
            why.or_else(|| of_query(query, node))
                .map_or(Fate::Sent, Fate::NotRun)
        } else {
            Fate::LeftOut("it is disabled".to_owned())
        };
        let name = format!("{}/{}", pack.name, query.name);
        found.push(part("query", &name, pack.id.0, target, fate));
    }
}

/// Options that came inside a pack which the node gets.
fn options_of_pack(
    pack: &Pack,
    chosen: &Chosen<'_>,
    node: &NodeFacts,
    found: &mut Vec<Contribution>,
) {
    for (name, value) in pack.options() {
        let fate = if chosen.options.iter().any(|option| option.name == name) {
            Fate::NotRun("the option that is set by itself wins".to_owned())
        } else if pack.is_for(node) {
            option_fate(name, node)
        } else {
            Fate::NotRun("its pack does not run".to_owned())
        };
        let name = format!("{name} = {value} (pack {})", pack.name);
        found.push(part(
            "pack option",
            &name,
            pack.id.0,
            pack.target.as_str(),
            fate,
        ));
    }
}

fn of_query(query: &Query, node: &NodeFacts) -> Option<String> {
    not_run(&query.platform, &query.version, query.shard, node)
}

/// Why osqueryd does not run what carries these conditions.
fn not_run(platform: &str, version: &str, shard: Option<i16>, node: &NodeFacts) -> Option<String> {
    if !takes_platform(platform, &node.platform) {
        Some(format!(
            "it is for {platform}, the node is {}",
            node.platform
        ))
    } else if !takes_version(version, &node.osquery_version) {
        Some(format!(
            "it is for osquery {version} and later, the node has {}",
            node.osquery_version
        ))
    } else {
        let percent = shard.filter(|percent| !in_shard(*percent, &node.hostname))?;
        Some(format!("its shard of {percent} % does not hold this host"))
    }
}

fn option_fate(name: &str, node: &NodeFacts) -> Fate {
    let ignored = flags::find(name)
        .is_some_and(|flag| flag.settable == flags::Settable::CommandLine)
        && takes_version("5.4.0", &node.osquery_version)
        && !node.osquery_version.is_empty();
    if ignored {
        Fate::NotRun("osquery 5.4 and later takes this flag from the command line only".to_owned())
    } else {
        Fate::Sent
    }
}

/// Something that differs between two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `packs / it / queries / users / interval`.
    pub path: String,
    /// As JSON; none: not there.
    pub before: Option<String>,
    /// As JSON; none: not there.
    pub after: Option<String>,
}

/// What differs between two documents, member by member, at most `most`.
#[must_use]
pub fn differences(before: &Value, after: &Value, most: usize) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(before), Some(after), most, &mut found);
    found
}

fn walk(
    path: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    most: usize,
    found: &mut Vec<Difference>,
) {
    if before == after || found.len() >= most {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) {
        let names = old
            .keys()
            .chain(new.keys().filter(|name| !old.contains_key(*name)));
        for name in names {
            let below = if path.is_empty() {
                name.clone()
            } else {
                format!("{path} / {name}")
            };
            walk(&below, old.get(name), new.get(name), most, found);
        }
        return;
    }
    found.push(Difference {
        path: path.to_owned(),
        before: before.map(ToString::to_string),
        after: after.map(ToString::to_string),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ConfigOption;
    use super::*;
    use crate::ids::{OptionId, PackId, QueryId};
    use crate::target::TargetText;

    fn target(text: &str) -> TargetText {
        TargetText::parse(text).unwrap()
    }

    fn query(name: &str, platform: &str, enabled: bool, to: &str) -> Query {
        Query {
            id: QueryId(Uuid::nil()),
            name: name.into(),
            description: String::new(),
            value: String::new(),
            sql: "SELECT 1".into(),
            enabled,
            interval_seconds: 60,
            snapshot: false,
            removed: true,
            denylist: true,
            startup_priority: None,
            platform: platform.into(),
            version: String::new(),
            shard: None,
            target: target(to),
            extra: serde_json::Map::new(),
        }
    }

    fn option(value: i64, to: &str, priority: i32) -> ConfigOption {
        ConfigOption {
            id: OptionId(Uuid::from_u128(u128::try_from(value).unwrap())),
            name: "logger_tls_period".into(),
            value: json!(value),
            target: target(to),
            priority,
        }
    }

    fn explained(parts: &Parts, node: &NodeFacts) -> Vec<(String, Fate)> {
        parts
            .explain(node)
            .into_iter()
            .map(|part| (part.name, part.fate))
            .collect()
    }

    #[test]
    fn every_part_says_what_became_of_it() {
        let node = NodeFacts {
            platform: "linux".into(),
            osquery_version: "5.0.0".into(),
            tags: vec!["prod".into()],
            ..NodeFacts::default()
        };
        let left_out = |why: &str| Fate::LeftOut(why.into());
        let mut late = query("late", "", true, "");
        late.version = "5.5.0".into();
        let parts = Parts {
            packs: vec![Pack {
                id: PackId(Uuid::nil()),
                name: "it".into(),
                description: String::new(),
                target: target("prod"),
                enabled: true,
                built_in: false,
                platform: String::new(),
                version: String::new(),
                shard: None,
                discovery: Vec::new(),
                extra: serde_json::Map::new(),
                queries: vec![
                    query("mac", "darwin", true, ""),
                    query("off", "", false, ""),
                ],
            }],
            queries: vec![
                late,
                query("lab", "", true, "lab"),
                query("off", "", false, "prod"),
                query("plain", "", true, "prod"),
            ],
            options: vec![option(10, "", 0), option(4, "prod", 5), option(2, "lab", 9)],
            ..Parts::default()
        }
        .sorted();
        let not_chosen = "its target does not choose this node";
        assert_eq!(
            explained(&parts, &node),
            [
                ("it".into(), Fate::Sent),
                (
                    "it/mac".into(),
                    Fate::NotRun("it is for darwin, the node is linux".into())
                ),
                ("it/off".into(), left_out("it is disabled")),
                ("lab".into(), left_out(not_chosen)),
                (
                    "late".into(),
                    Fate::NotRun("it is for osquery 5.5.0 and later, the node has 5.0.0".into())
                ),
                ("off".into(), left_out("it is disabled")),
                ("plain".into(), Fate::Sent),
                (
                    "logger_tls_period = 10".into(),
                    left_out("another value for \"prod\" wins, with priority 5 over 0")
                ),
                ("logger_tls_period = 4".into(), Fate::Sent),
                ("logger_tls_period = 2".into(), left_out(not_chosen)),
            ]
        );
        let sent = parts.assemble(&node);
        assert_eq!(sent["options"]["logger_tls_period"], 4);
        assert_eq!(sent["schedule"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn documents_are_compared_member_by_member() {
        let before = json!({"schedule": {"a": {"interval": 60}, "b": 1}, "options": {}});
        let after = json!({"schedule": {"a": {"interval": 30}, "c": [1]}, "options": {}});
        let said: Vec<_> = differences(&before, &after, 10)
            .into_iter()
            .map(|each| (each.path, each.before, each.after))
            .collect();
        assert_eq!(
            said,
            [
                (
                    "schedule / a / interval".into(),
                    Some("60".into()),
                    Some("30".into())
                ),
                ("schedule / b".into(), Some("1".into()), None),
                ("schedule / c".into(), None, Some("[1]".into())),
            ]
        );
        assert_eq!(differences(&before, &after, 1).len(), 1);
        assert_eq!(differences(&before, &before, 9), []);
    }
}
