//! What files want there to be, in the store's words. What there is already is not looked at here.

use std::collections::HashSet;

use ostiary_domain::node_config::section::RESERVED;
use ostiary_domain::osquery::pack_file::{
    ImportedFile, ImportedFilePaths, ImportedPack, ImportedQuery, ImportedTag,
};
use ostiary_domain::target::Target;
use ostiary_store::decorators::DecoratorValues;
use ostiary_store::file_paths::FilePathValues;
use ostiary_store::options::OptionValues;
use ostiary_store::packs::PackValues;
use ostiary_store::queries::QueryValues;
use ostiary_store::sections::SectionValues;
use serde_json::{Map, Value};

use super::report::Note;
use crate::actions::takeover::pack_name;

/// A pack with its queries.
#[derive(Debug, Clone)]
pub(crate) struct WantedPack {
    pub(crate) values: PackValues,
    pub(crate) queries: Vec<QueryValues>,
}

/// Everything that is wanted. A target that is empty leaves a known thing's target as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) target: String,
    pub(crate) packs: Vec<WantedPack>,
    pub(crate) queries: Vec<QueryValues>,
    pub(crate) options: Vec<OptionValues>,
    /// Their names are given when it is known which are taken.
    pub(crate) decorators: Vec<DecoratorValues>,
    pub(crate) file_paths: Vec<FilePathValues>,
    pub(crate) sections: Vec<SectionValues>,
    pub(crate) tags: Vec<ImportedTag>,
    pub(crate) notes: Vec<Note>,
    /// Is one of the files a whole config, rather than a pack?
    pub(crate) is_whole: bool,
    /// Is what was switched off here to be switched on?
    pub(crate) switch_on: bool,
}

impl Wanted {
    /// For nodes of this target.
    pub(crate) fn for_target(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn note(
        &mut self,
        kind: &'static str,
        place: impl Into<String>,
        text: impl Into<String>,
    ) {
        self.notes.push(Note {
            kind,
            place: place.into(),
            text: text.into(),
        });
    }

    /// Adds what a file holds.
    pub(crate) fn add(&mut self, name: &str, file: ImportedFile) {
        for problem in &file.problems {
            self.note(
                "warning",
                format!("{name}: {}", problem.entry),
                problem.what.clone(),
            );
        }
        self.is_whole |= !file.is_pack;
        for pack in file.packs {
            self.add_pack(name, pack);
        }
        for query in file.schedule {
            let query_name = query.name.clone();
            if query_name.starts_with("pack/") {
                let text = "It begins with \"pack/\", as results of packs do; it is left out.";
                self.note("danger", format!("{name}: schedule.{query_name}"), text);
            } else if self.queries.iter().any(|known| known.name == query_name) {
                let text = "Another of these files has a query of this name; it is left out.";
                self.note("danger", format!("{name}: schedule.{query_name}"), text);
            } else {
                let target = narrowed(&self.target, &query.target);
                self.queries.push(query_values(query, target));
            }
        }
        self.add_options(name, file.options);
        self.add_decorators(name, &file.decorators);
        for path in file.file_paths {
            self.add_file_path(name, path);
        }
        for (key, value) in file.extra {
            self.add_section(name, key, value);
        }
        self.tags.extend(file.tags);
    }

    pub(crate) fn add_pack(&mut self, file: &str, pack: ImportedPack) {
        let mut name = pack.name.clone();
        if name.contains('/') {
            name = pack_name(&name);
            let text = format!(
                "It is called {name} here: the slash ends a pack's name in the names of results."
            );
            self.note("warning", format!("{file}: packs.{}", pack.name), text);
        }
        if self.packs.iter().any(|known| known.values.name == name) {
            let text = "Another of these files has a pack of this name; it is left out.";
            self.note("danger", format!("{file}: packs.{name}"), text);
            return;
        }
        let queries = pack
            .queries
            .into_iter()
            .map(|query| query_values(query, String::new()));
        let values = PackValues {
            name,
            description: pack.description,
            target: narrowed(&self.target, &pack.target),
            platform: pack.platform,
            version: pack.version,
            shard: pack.shard.map(i16::from),
            discovery: pack.discovery,
            extra: Value::Object(pack.extra),
            enabled: true,
        };
        self.packs.push(WantedPack {
            values,
            queries: queries.collect(),
        });
    }

    fn add_options(&mut self, file: &str, options: Map<String, Value>) {
        for (name, value) in options {
            let place = format!("{file}: options.{name}");
            if name == "pack_delimiter" {
                if value != "/" {
                    self.note("info", place, "It is left out: it is always \"/\" here.");
                }
                continue;
            }
            let is_usable = match &value {
                Value::String(text) => !text.is_empty(),
                Value::Number(number) => number.is_i64() || number.is_u64(),
                Value::Bool(_) => true,
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            };
            if !is_usable {
                let text = "It is left out; a text, a whole number, true or false is needed.";
                self.note("warning", place, text);
                continue;
            }
            self.options.retain(|known| known.name != name);
            self.options.push(OptionValues {
                name,
                value,
                target: self.target.clone(),
                priority: 0,
            });
        }
    }

    fn add_decorators(&mut self, file: &str, decorators: &Map<String, Value>) {
        for (moment, value) in decorators {
            match (moment.as_str(), value) {
                ("load" | "always", value) => {
                    for sql in texts(value) {
                        self.add_decorator(moment, None, sql);
                    }
                }
                ("interval", Value::Object(by_seconds)) => {
                    for (seconds, value) in by_seconds {
                        let usable = seconds.parse::<i32>().ok();
                        match usable.filter(|seconds| *seconds > 0 && seconds % 60 == 0) {
                            Some(seconds) => {
                                for sql in texts(value) {
                                    self.add_decorator(moment, Some(seconds), sql);
                                }
                            }
                            None => self.note(
                                "warning",
                                format!("{file}: decorators.interval.{seconds}"),
                                "It is left out: osquery wants seconds that 60 divides.",
                            ),
                        }
                    }
                }
                _ => self.note(
                    "warning",
                    format!("{file}: decorators.{moment}"),
                    "It is left out: there are load, always and interval.",
                ),
            }
        }
    }

    fn add_decorator(&mut self, moment: &str, interval_seconds: Option<i32>, sql: String) {
        let values = DecoratorValues {
            name: String::new(),
            moment: moment.to_owned(),
            interval_seconds,
            sql,
            target: self.target.clone(),
            enabled: true,
        };
        let is_known = self.decorators.iter().any(|known| {
            known.moment == values.moment
                && known.interval_seconds == values.interval_seconds
                && known.sql == values.sql
        });
        if !is_known {
            self.decorators.push(values);
        }
    }

    pub(crate) fn add_file_path(&mut self, file: &str, path: ImportedFilePaths) {
        if self
            .file_paths
            .iter()
            .any(|known| known.category == path.category)
        {
            let text = "Another of these files has this category; it is left out.";
            self.note(
                "danger",
                format!("{file}: file_paths.{}", path.category),
                text,
            );
            return;
        }
        self.file_paths.push(FilePathValues {
            category: path.category,
            globs: path.globs,
            queries: path.queries,
            exclude_globs: path.exclude_globs,
            file_accesses: path.file_accesses,
            target: self.target.clone(),
            enabled: true,
        });
    }

    fn add_section(&mut self, file: &str, key: String, value: Value) {
        let place = format!("{file}: {key}");
        if key == "ostiary" || value.is_null() {
            return;
        }
        if RESERVED.contains(&key.as_str()) {
            self.note(
                "warning",
                place,
                "It cannot stand so in a config; it is left out.",
            );
            return;
        }
        if self.sections.iter().any(|known| known.key == key) {
            self.note(
                "danger",
                place,
                "Another of these files has this key; it is left out.",
            );
            return;
        }
        let mut value = value;
        value.sort_all_objects();
        self.sections.push(SectionValues {
            key,
            name: String::new(),
            description: String::new(),
            value,
            target: self.target.clone(),
            priority: 0,
            enabled: true,
        });
    }

    /// Names that come twice in one pack are told, and the first stays. (One file cannot have them; a database can.)
    pub(crate) fn drop_repeated(&mut self) {
        let mut notes = Vec::new();
        for pack in &mut self.packs {
            let mut seen = HashSet::new();
            let pack_name = pack.values.name.clone();
            pack.queries.retain(|query| {
                let is_new = seen.insert(query.name.clone());
                if !is_new {
                    notes.push(Note {
                        kind: "danger",
                        place: format!("{pack_name}/{}", query.name),
                        text: "There is another query of this name; this one is left out."
                            .to_owned(),
                    });
                }
                is_new
            });
        }
        self.notes.extend(notes);
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect(),
        Value::String(sql) => vec![sql.clone()],
        _ => Vec::new(),
    }
}

/// A query as it is stored.
pub(super) fn query_values(query: ImportedQuery, target: String) -> QueryValues {
    let mut extra = Value::Object(query.extra);
    extra.sort_all_objects();
    QueryValues {
        name: query.name,
        sql: query.sql,
        interval_seconds: i32::try_from(query.interval)
            .unwrap_or(604_800)
            .clamp(1, 604_800),
        snapshot: query.snapshot,
        removed: query.removed,
        denylist: query.denylist,
        startup_priority: query.startup_priority,
        platform: query.platform,
        version: query.version,
        shard: query.shard.map(i16::from),
        description: query.description,
        value: query.value,
        target,
        extra,
        enabled: true,
    }
}

/// The target of the import and that of the thing, both.
fn narrowed(of_import: &str, own: &str) -> String {
    match (of_import.trim(), own.trim()) {
        ("", own) => own.to_owned(),
        (target, "") => target.to_owned(),
        (target, own) => match (Target::parse(target), Target::parse(own)) {
            (Ok(target), Ok(own)) => target.and(own).to_text(),
            // What cannot be read chooses nobody.
            _ => Target::None.to_text(),
        },
    }
}
