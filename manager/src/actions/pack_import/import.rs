//! Importing osquery's own files: a pack, or a whole `.conf`. All of it or nothing, in one transaction; what could not be taken is
//! said in the report.

use std::collections::HashSet;

use ostiary_domain::ids::{DecoratorId, FilePathId, OptionId, PackId, QueryId};
use ostiary_domain::node_config::PACK_DELIMITER;
use ostiary_domain::osquery::pack_file::{ImportedFile, ImportedPack, ImportedQuery, parse};
use ostiary_store::decorators::{self, DecoratorValues};
use ostiary_store::file_paths::{self, FilePathValues};
use ostiary_store::options::{self, OptionValues};
use ostiary_store::packs::{self, PackValues};
use ostiary_store::queries;
use ostiary_store::Conn;
use serde::Serialize;
use serde_json::{Value, json};

use super::values::{is_same, query_values, statements};
use crate::actions::audit::Change;
use crate::actions::config_change::{ConfigChange, Saving};
use crate::actions::validate::Check;
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

/// What is typed or uploaded.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImportDraft {
    /// For a pack file, which does not say its own name.
    pub name: String,
    /// Tag expression: which nodes get it.
    pub target: String,
    /// The file.
    pub text: String,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Packs that were made or changed.
    pub packs: Vec<ReportedPack>,
    /// Queries that were made or changed, in packs and in the schedule.
    pub queries: usize,
    /// File paths that were made or changed.
    pub file_paths: usize,
    /// Decorators that were made.
    pub decorators: usize,
    /// Options that were made or changed.
    pub options: usize,
    /// What was left out or altered, and why.
    pub notes: Vec<Note>,
}

/// A pack of the file.
#[derive(Debug, Serialize)]
pub struct ReportedPack {
    /// Which.
    pub id: PackId,
    /// Its name here.
    pub name: String,
    /// How many queries the file gives it.
    pub queries: usize,
}

/// A sentence about the import.
#[derive(Debug, Serialize)]
pub struct Note {
    /// `info`, `warning` or `danger`.
    pub kind: &'static str,
    /// The sentence.
    pub text: String,
}

/// Imports a file. A pack of a name that exists becomes what the file says; its target stays unless another is given.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) on `text`, `name` or `target`; [`Error::Refused`](crate::error::Error::Refused) when a config would become too large. Nothing is changed then.
pub async fn import(
    app: &App,
    permit: &Permit<Edit>,
    draft: &ImportDraft,
    saving: &Saving,
) -> Result<Report> {
    let mut check = Check::default();
    let target = check.target("target", &draft.target);
    let name = check.line("name", &draft.name, 200);
    let file = match parse(
        &draft.text,
        if name.is_empty() { "imported" } else { &name },
    ) {
        Ok(file) => Some(file),
        Err(error) => {
            check.wrong("text", format!("It cannot be imported: {error}."));
            None
        }
    };
    check.done()?;
    let file = file.unwrap_or_default();
    let mut tx = ConfigChange::begin(app).await?;
    let mut import = Import {
        app,
        conn: &mut tx,
        target: &target,
        report: Report::default(),
    };
    import.everything(&file).await?;
    let report = import.report;
    let after = Some(json!({"report": report, "target": target}));
    let change = Change {
        action: "packs.import",
        kind: "import",
        name: &name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(report)
}

struct Import<'a> {
    app: &'a App,
    conn: &'a mut Conn,
    target: &'a str,
    report: Report,
}

impl Import<'_> {
    async fn everything(&mut self, file: &ImportedFile) -> Result<()> {
        for problem in &file.problems {
            self.note("warning", format!("{}: {}", problem.entry, problem.what));
        }
        for key in file.extra.keys() {
            self.note(
                "info",
                format!("{key}: not imported; Ostiary has no place for it."),
            );
        }
        for pack in &file.packs {
            self.pack(pack).await?;
        }
        self.schedule(&file.schedule).await?;
        self.options(file).await?;
        self.decorators(file).await?;
        self.file_paths(file).await
    }

    fn note(&mut self, kind: &'static str, text: String) {
        self.report.notes.push(Note { kind, text });
    }

    /// A name that results can be taken apart by.
    fn result_name(&mut self, name: &str) -> String {
        if !name.contains(PACK_DELIMITER) {
            return name.to_owned();
        }
        let changed = name.replace(PACK_DELIMITER, "-");
        let why = "the slash stands between pack and query in the names of results";
        self.note(
            "warning",
            format!("{name} is called {changed} here: {why}."),
        );
        changed
    }

    async fn pack(&mut self, pack: &ImportedPack) -> Result<()> {
        let name = self.result_name(&pack.name);
        let known = match packs::find_id(self.conn, &name).await? {
            Some(id) => packs::find(self.conn, id).await?,
            None => None,
        };
        if known.as_ref().is_some_and(|known| known.built_in) {
            self.note(
                "danger",
                format!("The pack {name} was left out: the built-in pack has this name."),
            );
            return Ok(());
        }
        let keeps_target = self.target.is_empty();
        let values = PackValues {
            description: known
                .as_ref()
                .map(|known| known.description.clone())
                .unwrap_or_default(),
            target: known
                .as_ref()
                .filter(|_| keeps_target)
                .map_or_else(|| self.target.to_owned(), |known| known.target.clone()),
            platform: pack.platform.clone(),
            version: pack.version.clone(),
            shard: pack.shard.map(i16::from),
            discovery: pack.discovery.clone(),
            extra: Value::Object(pack.extra.clone()),
            enabled: known.as_ref().is_none_or(|known| known.enabled),
            name: name.clone(),
        };
        let now = self.app.now();
        let id = match &known {
            Some(known) => {
                packs::update(self.conn, PackId(known.id), &values, now).await?;
                PackId(known.id)
            }
            None => {
                let id = PackId(ostiary_boot::clock::new_id());
                packs::insert(self.conn, id, &values, false, now).await?;
                id
            }
        };
        let gone = self.queries(Some(id), &pack.queries).await?;
        if !gone.is_empty() {
            self.note(
                "warning",
                format!(
                    "{name}: removed, since the file does not have them any more: {}.",
                    gone.join(", ")
                ),
            );
        }
        self.report.packs.push(ReportedPack {
            id,
            name,
            queries: pack.queries.len(),
        });
        Ok(())
    }

    /// Queries of the schedule are added and changed; others stay, since they may come from elsewhere.
    async fn schedule(&mut self, queries: &[ImportedQuery]) -> Result<()> {
        self.put_queries(None, queries).await.map(drop)
    }

    /// Makes the queries of a pack those of the file; returns the names of what was deleted.
    async fn queries(
        &mut self,
        pack: Option<PackId>,
        imported: &[ImportedQuery],
    ) -> Result<Vec<String>> {
        let kept = self.put_queries(pack, imported).await?;
        let mut gone = Vec::new();
        for query in queries::list(self.conn, pack).await? {
            if !kept.contains(&query.name) {
                queries::delete(self.conn, QueryId(query.id)).await?;
                gone.push(query.name);
            }
        }
        Ok(gone)
    }

    async fn put_queries(
        &mut self,
        pack: Option<PackId>,
        imported: &[ImportedQuery],
    ) -> Result<HashSet<String>> {
        let known = queries::list(self.conn, pack).await?;
        let mut names = HashSet::new();
        for query in imported {
            let name = self.result_name(&query.name);
            if !names.insert(name.clone()) {
                self.note(
                    "danger",
                    format!(
                        "{} was left out: there is another query called {name}.",
                        query.name
                    ),
                );
                continue;
            }
            let known = known.iter().find(|known| known.name == name);
            let target = if pack.is_some() { "" } else { self.target };
            let values = query_values(query, name, known, target);
            let now = self.app.now();
            match known {
                Some(known) if is_same(known, &values) => continue,
                Some(known) => {
                    queries::update(self.conn, QueryId(known.id), &values, now).await?;
                }
                None => {
                    queries::insert(
                        self.conn,
                        QueryId(ostiary_boot::clock::new_id()),
                        pack,
                        &values,
                        now,
                    )
                    .await?;
                }
            }
            self.report.queries += 1;
        }
        Ok(names)
    }

    async fn options(&mut self, file: &ImportedFile) -> Result<()> {
        let known = options::list(self.conn).await?;
        for (name, value) in &file.options {
            if name == "pack_delimiter" {
                self.note(
                    "info",
                    "options.pack_delimiter: not imported; it is always \"/\" here.".to_owned(),
                );
                continue;
            }
            let is_usable = match value {
                Value::String(text) => !text.is_empty(),
                Value::Number(number) => number.is_i64() || number.is_u64(),
                Value::Bool(_) => true,
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            };
            if !is_usable {
                self.note(
                    "warning",
                    format!(
                        "options.{name}: left out; a text, a whole number, true or false is needed."
                    ),
                );
                continue;
            }
            let found = known
                .iter()
                .find(|known| known.values.name == *name && known.values.target == self.target);
            let priority = found.map_or(0, |found| found.values.priority);
            let values = OptionValues {
                name: name.clone(),
                value: value.clone(),
                target: self.target.to_owned(),
                priority,
            };
            let now = self.app.now();
            match found {
                Some(found) if found.values.value == *value => continue,
                Some(found) => {
                    options::update(self.conn, OptionId(found.id), &values, now).await?;
                }
                None => {
                    options::insert(
                        self.conn,
                        OptionId(ostiary_boot::clock::new_id()),
                        &values,
                        now,
                    )
                    .await?;
                }
            }
            self.report.options += 1;
        }
        Ok(())
    }

    /// Decorators have no names in a file: one of the same moment, SQL and target is taken for the same.
    async fn decorators(&mut self, file: &ImportedFile) -> Result<()> {
        let known = decorators::list(self.conn).await?;
        let mut taken: HashSet<String> = known
            .iter()
            .map(|known| known.values.name.clone())
            .collect();
        for (moment, interval_seconds, sql) in statements(file) {
            let is_known = known.iter().map(|known| &known.values).any(|known| {
                known.moment == moment
                    && known.interval_seconds == interval_seconds
                    && known.sql == sql
                    && known.target == self.target
            });
            if is_known {
                continue;
            }
            let name = (1..)
                .map(|number| format!("{moment} {number}"))
                .find(|name| !taken.contains(name));
            let name = name.expect("there are more numbers than decorators");
            taken.insert(name.clone());
            let moment = moment.to_owned();
            let values = DecoratorValues {
                name,
                moment,
                interval_seconds,
                sql,
                target: self.target.to_owned(),
                enabled: true,
            };
            let id = DecoratorId(ostiary_boot::clock::new_id());
            decorators::insert(self.conn, id, &values, self.app.now()).await?;
            self.report.decorators += 1;
        }
        Ok(())
    }

    async fn file_paths(&mut self, file: &ImportedFile) -> Result<()> {
        let known = file_paths::list(self.conn).await?;
        for path in &file.file_paths {
            let found = known
                .iter()
                .find(|known| known.values.category == path.category);
            let keeps_target = self.target.is_empty();
            let values = FilePathValues {
                category: path.category.clone(),
                globs: path.globs.clone(),
                queries: found.map_or_else(Vec::new, |found| found.values.queries.clone()),
                exclude_globs: path.exclude_globs.clone(),
                file_accesses: path.file_accesses,
                target: found.filter(|_| keeps_target).map_or_else(
                    || self.target.to_owned(),
                    |found| found.values.target.clone(),
                ),
                enabled: found.is_none_or(|found| found.values.enabled),
            };
            let now = self.app.now();
            match found {
                Some(found) => {
                    file_paths::update(self.conn, FilePathId(found.id), &values, now).await?;
                }
                None => {
                    file_paths::insert(
                        self.conn,
                        FilePathId(ostiary_boot::clock::new_id()),
                        &values,
                        now,
                    )
                    .await?;
                }
            }
            self.report.file_paths += 1;
        }
        Ok(())
    }
}
