//! From what is wanted and what there is to steps. Nothing is changed here.

use std::collections::HashSet;

use ostiary_domain::node_config::section;
use ostiary_store::decorators::DecoratorValues;
use ostiary_store::file_paths::FilePathValues;
use ostiary_store::options::OptionValues;
use ostiary_store::packs::PackValues;
use ostiary_store::queries::{QueryRecord, QueryValues};
use ostiary_store::sections::{SectionRecord, SectionValues};
use ostiary_store::{Conn, takeovers};
use serde_json::{Value, json};
use uuid::Uuid;

use super::current::Current;
use super::report::{Action, Note, Step, differences};
use super::wanted::Wanted;
use crate::error::Result;

/// What is to be written for a step.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Pack(Option<Uuid>, PackValues),
    /// In the pack of this name, or in the schedule.
    Query(Option<Uuid>, Option<String>, QueryValues),
    Option(Option<Uuid>, OptionValues),
    Decorator(Option<Uuid>, DecoratorValues),
    FilePath(Option<Uuid>, FilePathValues),
    Section(Option<Uuid>, SectionValues),
    Tag(String, String),
    TagNodes(String, Vec<Uuid>),
    DeletePack(Uuid),
    DeleteQuery(Uuid),
    DeleteOption(Uuid),
    DeleteDecorator(Uuid),
    DeleteFilePath(Uuid),
    DeleteSection(Uuid),
}

/// Steps with what is to be written for them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) steps: Vec<Step>,
    pub(crate) writes: Vec<Write>,
    pub(crate) notes: Vec<Note>,
}

impl Steps {
    /// Notes what becomes of one thing; equal things need no write.
    fn put(
        &mut self,
        kind: &'static str,
        name: String,
        old: Option<&Value>,
        new: &Value,
        write: Write,
    ) {
        let fields = differences(old, Some(new), &PASSED_OVER);
        let action = match (old, fields.is_empty()) {
            (None, _) => Action::Added,
            (Some(_), true) => Action::Unchanged,
            (Some(_), false) => Action::Changed,
        };
        if action != Action::Unchanged {
            self.writes.push(write);
        }
        self.steps.push(Step {
            action,
            kind,
            name,
            fields,
        });
    }

    fn remove(&mut self, kind: &'static str, name: String, old: &Value, write: Write) {
        self.steps.push(Step {
            action: Action::Removed,
            kind,
            name,
            fields: differences(Some(old), None, &PASSED_OVER),
        });
        self.writes.push(write);
    }
}

/// Of records: what is not set by people.
const PASSED_OVER: [&str; 5] = ["id", "pack_id", "built_in", "updated_at", "queries"];

/// The steps from what there is to what is wanted. With `replace`, what this target has and the files do not is removed: of the packs
/// that are named, their other queries; and if a file is a whole config, whatever else has exactly this target.
pub(crate) async fn compare(
    conn: &mut Conn,
    current: &Current,
    wanted: &Wanted,
    replace: bool,
) -> Result<Steps> {
    let mut comparison = Comparison {
        wanted,
        current,
        out: Steps::default(),
    };
    comparison.tags(conn).await?;
    comparison.packs(replace);
    comparison.queries(replace);
    comparison.options(replace);
    comparison.decorators(replace);
    comparison.file_paths(replace);
    comparison.sections(replace);
    Ok(comparison.out)
}

struct Comparison<'a> {
    wanted: &'a Wanted,
    current: &'a Current,
    out: Steps,
}

impl Comparison<'_> {
    fn removes(&self, replace: bool, target: &str) -> bool {
        replace && self.wanted.is_whole && target.trim() == self.wanted.target.trim()
    }

    /// What somebody has switched off here stays off, unless the import is to switch things on; that is said.
    fn keep_off(&mut self, enabled: &mut bool, known: bool, name: &str) {
        if !*enabled || known || self.wanted.switch_on {
            return;
        }
        *enabled = false;
        self.out.notes.push(Note {
            kind: "info",
            place: name.to_owned(),
            text: "It is switched off here and stays so. Choose to switch things on if nodes shall get it.".to_owned(),
        });
    }

    async fn tags(&mut self, conn: &mut Conn) -> Result<()> {
        for tag in &self.wanted.tags {
            let is_known = (self.current.tags.iter())
                .any(|known| known.to_lowercase() == tag.name.to_lowercase());
            let action = if is_known {
                Action::Unchanged
            } else {
                Action::Added
            };
            self.out.steps.push(Step {
                action,
                kind: "tag",
                name: tag.name.clone(),
                fields: Vec::new(),
            });
            if !is_known {
                self.out
                    .writes
                    .push(Write::Tag(tag.name.clone(), tag.description.clone()));
            }
            if tag.hosts.is_empty() {
                continue;
            }
            let found = takeovers::nodes_by_names(conn, &tag.name, &tag.hosts).await?;
            let new: Vec<_> = found.iter().filter(|node| !node.carries).collect();
            if !new.is_empty() {
                let names: Vec<&str> = new.iter().map(|node| node.name.as_str()).collect();
                let fields = differences(None, Some(&json!({"nodes": names})), &[]);
                self.out.steps.push(Step {
                    action: Action::Changed,
                    kind: "nodes of tag",
                    name: tag.name.clone(),
                    fields,
                });
                let ids = new.iter().map(|node| node.id).collect();
                self.out.writes.push(Write::TagNodes(tag.name.clone(), ids));
            }
            let missing = tag.hosts.len().saturating_sub(found.len());
            if missing > 0 {
                self.out.notes.push(Note {
                    kind: "info",
                    place: format!("tag {}", tag.name),
                    text: format!(
                        "{missing} of its {} hosts are no nodes here (yet).",
                        tag.hosts.len()
                    ),
                });
            }
        }
        Ok(())
    }

    fn packs(&mut self, replace: bool) {
        for pack in &self.wanted.packs {
            let mut values = pack.values.clone();
            let name = values.name.clone();
            let known = self.current.packs.iter().find(|known| known.name == name);
            if known.is_some_and(|known| known.built_in) {
                self.out.notes.push(Note {
                    kind: "danger",
                    place: name,
                    text: "The pack is left out: the built-in pack has this name.".to_owned(),
                });
                continue;
            }
            if let Some(known) = known {
                self.keep_off(&mut values.enabled, known.enabled, &name);
            }
            let (new, old) = (json!(values), known.map(|known| json!(known)));
            let write = Write::Pack(known.map(|known| known.id), values);
            self.out
                .put("pack", name.clone(), old.as_ref(), &new, write);
            let queries = known.and_then(|known| self.current.packed.get(&known.id));
            let queries = queries.map(Vec::as_slice).unwrap_or_default();
            for query in &pack.queries {
                self.query(Some(&name), query, queries);
            }
            for gone in queries.iter().filter(|known| {
                replace && !pack.queries.iter().any(|query| query.name == known.name)
            }) {
                let (name, write) = (format!("{name}/{}", gone.name), Write::DeleteQuery(gone.id));
                self.out.remove("query", name, &json!(gone), write);
            }
        }
        for gone in &self.current.packs {
            let is_wanted = self
                .wanted
                .packs
                .iter()
                .any(|pack| pack.values.name == gone.name);
            if self.removes(replace, &gone.target) && !gone.built_in && !is_wanted {
                let (name, write) = (gone.name.clone(), Write::DeletePack(gone.id));
                self.out.remove("pack", name, &json!(gone), write);
            }
        }
    }

    fn query(&mut self, pack: Option<&str>, query: &QueryValues, known: &[QueryRecord]) {
        let mut values = query.clone();
        let known = known.iter().find(|known| known.name == values.name);
        let name = match pack {
            Some(pack) => format!("{pack}/{}", values.name),
            None => values.name.clone(),
        };
        if let Some(known) = known {
            self.keep_off(&mut values.enabled, known.enabled, &name);
        }
        let (new, old) = (json!(values), known.map(|known| json!(known)));
        let write = Write::Query(
            known.map(|known| known.id),
            pack.map(ToOwned::to_owned),
            values,
        );
        self.out.put("query", name, old.as_ref(), &new, write);
    }

    fn queries(&mut self, replace: bool) {
        for query in &self.wanted.queries {
            self.query(None, query, &self.current.queries);
        }
        for gone in &self.current.queries {
            let is_wanted = self
                .wanted
                .queries
                .iter()
                .any(|query| query.name == gone.name);
            if self.removes(replace, &gone.target) && !is_wanted {
                let (name, write) = (gone.name.clone(), Write::DeleteQuery(gone.id));
                self.out.remove("query", name, &json!(gone), write);
            }
        }
    }

    fn options(&mut self, replace: bool) {
        for option in &self.wanted.options {
            let mut values = option.clone();
            let known = self.current.options.iter().find(|known| {
                known.values.name == values.name && known.values.target == values.target
            });
            if let Some(known) = known {
                values.priority = known.values.priority;
            }
            let (new, old) = (json!(values), known.map(|known| json!(known)));
            let (name, id) = (values.name.clone(), known.map(|known| known.id));
            self.out.put(
                "option",
                name,
                old.as_ref(),
                &new,
                Write::Option(id, values),
            );
        }
        for gone in &self.current.options {
            let is_wanted =
                (self.wanted.options.iter()).any(|option| option.name == gone.values.name);
            if self.removes(replace, &gone.values.target) && !is_wanted {
                let (name, write) = (gone.values.name.clone(), Write::DeleteOption(gone.id));
                self.out.remove("option", name, &json!(gone), write);
            }
        }
    }

    /// Decorators have no names in a file: one of the same moment, SQL and target is taken for the same.
    fn decorators(&mut self, replace: bool) {
        let same = |one: &DecoratorValues, other: &DecoratorValues| {
            one.moment == other.moment
                && one.interval_seconds == other.interval_seconds
                && one.sql == other.sql
                && one.target.trim() == other.target.trim()
        };
        let mut taken: HashSet<String> = (self.current.decorators.iter())
            .map(|known| known.values.name.clone())
            .collect();
        for decorator in &self.wanted.decorators {
            let mut values = decorator.clone();
            let known = (self.current.decorators.iter()).find(|known| same(&known.values, &values));
            match known {
                Some(known) => {
                    values.name.clone_from(&known.values.name);
                    self.keep_off(&mut values.enabled, known.values.enabled, &values.name);
                }
                None => {
                    values.name = (1..)
                        .map(|number| format!("{} {number}", values.moment))
                        .find(|name| !taken.contains(name))
                        .unwrap_or_default();
                    taken.insert(values.name.clone());
                }
            }
            let (new, old) = (json!(values), known.map(|known| json!(known)));
            let (name, id) = (values.name.clone(), known.map(|known| known.id));
            self.out.put(
                "decorator",
                name,
                old.as_ref(),
                &new,
                Write::Decorator(id, values),
            );
        }
        for gone in &self.current.decorators {
            let is_wanted =
                (self.wanted.decorators.iter()).any(|wanted| same(wanted, &gone.values));
            if self.removes(replace, &gone.values.target) && !is_wanted {
                let (name, write) = (gone.values.name.clone(), Write::DeleteDecorator(gone.id));
                self.out.remove("decorator", name, &json!(gone), write);
            }
        }
    }

    fn file_paths(&mut self, replace: bool) {
        for path in &self.wanted.file_paths {
            let mut values = path.clone();
            let known = (self.current.file_paths.iter())
                .find(|known| known.values.category == values.category);
            if let Some(known) = known {
                self.keep_off(&mut values.enabled, known.values.enabled, &values.category);
            }
            let (new, old) = (json!(values), known.map(|known| json!(known)));
            let (name, id) = (values.category.clone(), known.map(|known| known.id));
            self.out.put(
                "file path",
                name,
                old.as_ref(),
                &new,
                Write::FilePath(id, values),
            );
        }
        for gone in &self.current.file_paths {
            let is_wanted =
                (self.wanted.file_paths.iter()).any(|path| path.category == gone.values.category);
            if self.removes(replace, &gone.values.target) && !is_wanted {
                let (name, write) = (gone.values.category.clone(), Write::DeleteFilePath(gone.id));
                self.out.remove("file path", name, &json!(gone), write);
            }
        }
    }

    /// A key is one in a file, and may be several pieces here. Pieces that make together what the file says stay; a single one becomes
    /// what it says; else a further piece says it.
    fn sections(&mut self, replace: bool) {
        for section in &self.wanted.sections {
            let mut values = section.clone();
            let pieces: Vec<&SectionRecord> = (self.current.sections.iter())
                .filter(|known| known.values.key == values.key)
                .filter(|known| known.values.target.trim() == values.target.trim())
                .collect();
            let enabled: Vec<&SectionValues> = pieces
                .iter()
                .map(|piece| &piece.values)
                .filter(|piece| piece.enabled)
                .collect();
            if merged(&enabled).as_ref() == Some(&values.value) && values.enabled {
                let name = values.key.clone();
                self.out.steps.push(Step {
                    action: Action::Unchanged,
                    kind: "section",
                    name,
                    fields: Vec::new(),
                });
                continue;
            }
            let imported = match values.target.trim() {
                "" => "imported".to_owned(),
                target => format!("imported for {target}"),
            };
            let known = match pieces.as_slice() {
                [only] => Some(*only),
                several => several
                    .iter()
                    .find(|piece| piece.values.name == imported)
                    .copied(),
            };
            match known {
                Some(known) => {
                    values.name.clone_from(&known.values.name);
                    values.description.clone_from(&known.values.description);
                    values.priority = known.values.priority;
                    self.keep_off(&mut values.enabled, known.values.enabled, &values.key);
                }
                None => {
                    let of_key = (self.current.sections.iter())
                        .filter(|known| known.values.key == values.key);
                    let taken: HashSet<&str> =
                        of_key.map(|known| known.values.name.as_str()).collect();
                    values.name = std::iter::once(imported.clone())
                        .chain((2..).map(|number| format!("{imported} {number}")))
                        .find(|name| !taken.contains(name.as_str()))
                        .unwrap_or(imported);
                }
            }
            let (new, old) = (json!(values), known.map(|known| json!(known)));
            let name = format!("{}: {}", values.key, values.name);
            let id = known.map(|known| known.id);
            self.out.put(
                "section",
                name,
                old.as_ref(),
                &new,
                Write::Section(id, values),
            );
        }
        for gone in &self.current.sections {
            let is_wanted =
                (self.wanted.sections.iter()).any(|wanted| wanted.key == gone.values.key);
            if self.removes(replace, &gone.values.target) && !is_wanted {
                let name = format!("{}: {}", gone.values.key, gone.values.name);
                self.out
                    .remove("section", name, &json!(gone), Write::DeleteSection(gone.id));
            }
        }
    }
}

/// What pieces of one key are together, as a node gets them; `None` without any.
pub(super) fn merged(pieces: &[&SectionValues]) -> Option<Value> {
    let mut pieces = pieces.to_vec();
    pieces.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    let mut merged: Option<Value> = None;
    for piece in pieces {
        match &mut merged {
            None => merged = Some(piece.value.clone()),
            Some(before) => section::merge(&piece.key, before, &piece.value),
        }
    }
    merged
}
