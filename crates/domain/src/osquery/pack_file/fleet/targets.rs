//! Labels and teams as target expressions. What cannot be said here reaches nobody, and is told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{ImportedTag, Problem};
use crate::tag;
use crate::target::Target;

/// What a label that Fleet brings along stands for.
enum BuiltIn {
    /// Nodes that a target can choose.
    Nodes(Target),
    /// Part of a platform's nodes, told by what a target does not look at.
    Part,
    /// Machines without osqueryd.
    Elsewhere,
}

/// The labels of `fleet.BuiltinLabelName…` (`server/fleet/labels.go`), and the names that some of them had before.
fn built_in(name: &str) -> Option<BuiltIn> {
    let platform = |name: &str| Some(BuiltIn::Nodes(Target::Platform(name.to_owned())));
    match name {
        "All Hosts" => Some(BuiltIn::Nodes(Target::All)),
        "macOS" | "Mac OS X" => platform("darwin"),
        "MS Windows" => platform("windows"),
        "All Linux" => platform("linux"),
        "Ubuntu Linux"
        | "CentOS Linux"
        | "Red Hat Linux"
        | "Fedora Linux"
        | "RHEL"
        | "macOS 14+ (Sonoma+)" => Some(BuiltIn::Part),
        "chrome" | "ChromeOS" | "Chrome OS" | "iOS" | "iPadOS" | "Android" => {
            Some(BuiltIn::Elsewhere)
        }
        _ => None,
    }
}

/// Is it one that Fleet brings along, whose document says nothing new?
pub(super) fn is_built_in(name: &str) -> bool {
    built_in(name).is_some()
}

/// How a list of names is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nodes with any of them.
    Any,
    /// Nodes with all of them.
    All,
    /// Nodes with none of them.
    Except,
}

/// What files say of one label or team.
#[derive(Default)]
struct Mention {
    excluded: bool,
}

/// The labels and teams that were met, and what they are called here.
#[derive(Default)]
pub(super) struct Labels {
    /// By the names in the file.
    mentioned: BTreeMap<String, Mention>,
    /// Names in the file, by the tag in lower case.
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Labels {
    /// What a label or team is called here.
    pub(super) fn tag(&mut self, name: &str) -> String {
        let tag = tag::name_of(name).unwrap_or_else(|| "unnamed".to_owned());
        let names = self.names.entry(tag.to_lowercase()).or_default();
        names.insert(name.trim().to_lowercase());
        tag
    }

    /// The nodes of one label or team.
    pub(super) fn nodes(&mut self, name: &str) -> Target {
        self.mentioned.entry(name.to_owned()).or_default();
        match built_in(name) {
            Some(BuiltIn::Nodes(target)) => target,
            Some(BuiltIn::Elsewhere) => Target::None,
            Some(BuiltIn::Part) | None => Target::Tag(self.tag(name)),
        }
    }

    /// The nodes that a list chooses; `None` when there is no list, or an empty one.
    ///
    /// # Errors
    /// Something in the list is no name. Whom it means is then unknown.
    pub(super) fn list(
        &mut self,
        value: Option<&Value>,
        meaning: Meaning,
    ) -> Result<Option<Target>, ()> {
        let names: Vec<&str> = match value {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(items)) if items.is_empty() => return Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().ok_or(()))
                .collect::<Result<_, ()>>()?,
            Some(_) => return Err(()),
        };
        if names.iter().any(|name| name.trim().is_empty()) {
            return Err(());
        }
        let nodes: Vec<Target> = names.iter().map(|name| self.nodes(name)).collect();
        if meaning == Meaning::Except {
            for name in names {
                self.mentioned.entry(name.to_owned()).or_default().excluded = true;
            }
        }
        Ok(Some(match meaning {
            Meaning::Any => Target::any(nodes),
            Meaning::All => nodes.into_iter().fold(Target::All, Target::and),
            Meaning::Except => Target::All.except(Target::any(nodes)),
        }))
    }

    /// Says what became of the labels, once for each, and adds the tags that nothing else makes.
    pub(super) fn finish(self, tags: &mut Vec<ImportedTag>, problems: &mut Vec<Problem>) {
        let mut say = |name: &str, what: String| {
            problems.push(Problem {
                entry: format!("label {name}"),
                what,
            });
        };
        for names in self.names.values().filter(|names| names.len() > 1) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            say(&names.join(", "), "these become one tag here, whose nodes would get what is for any of them; call them otherwise before".to_owned());
        }
        for (name, mention) in &self.mentioned {
            let tag = tag::name_of(name).unwrap_or_default();
            let known = tags
                .iter()
                .find(|known| known.name.eq_ignore_ascii_case(&tag));
            let has_nodes = known.is_some_and(|known| !known.hosts.is_empty());
            match built_in(name) {
                Some(BuiltIn::Nodes(_)) => continue,
                Some(BuiltIn::Elsewhere) => {
                    say(
                        name,
                        "no osqueryd runs there, so it chooses no node".to_owned(),
                    );
                    continue;
                }
                Some(BuiltIn::Part) => say(
                    name,
                    format!(
                        "targets choose by tag, platform and name, not by what makes this label; it becomes the tag {tag}: give it to its nodes"
                    ),
                ),
                None if known.is_none() => say(
                    name,
                    format!(
                        "it is not described in these files; nodes that carry the tag {tag} are meant"
                    ),
                ),
                None => {}
            }
            if mention.excluded && !has_nodes {
                say(
                    name,
                    format!("it is excluded; as long as no node carries the tag {tag}, nobody is"),
                );
            }
            if known.is_none() {
                tags.push(ImportedTag {
                    name: tag,
                    description: format!("Fleet's {name}"),
                    hosts: Vec::new(),
                });
            }
        }
    }
}
