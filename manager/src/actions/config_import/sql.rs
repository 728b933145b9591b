//! All SQL of an import passes the check that every SQL passes. What does not pass comes in switched off, so that it can be mended here
//! and reaches no node meanwhile.

use std::sync::Arc;

use ostiary_domain::node_config::section::statements;
use ostiary_domain::node_config::section_check::{check_key, check_value};
use ostiary_domain::table_denial::AUTO_TABLES;
use ostiary_sql_check::Checker;
use ostiary_store::Conn;
use serde_json::Value;

use super::report::Note;
use super::wanted::Wanted;
use crate::actions::sql_check::{Brought, SqlKind, SqlProblem, SqlUse, check_sql_among};
use crate::state::App;

/// How often views are tried that read others which were not found sound yet: views upon views of other packs, so deep.
const MAX_ROUNDS: usize = 8;

/// Switches off what has unsound SQL, and says so.
pub(crate) async fn check(app: &App, conn: &mut Conn, wanted: &mut Wanted) {
    let mut checking = Checking {
        app,
        conn,
        notes: Vec::new(),
        brought: Vec::new(),
        checker: None,
    };
    checking.bring(wanted).await;
    for pack in &mut wanted.packs {
        let (name, target) = (pack.values.name.clone(), pack.values.target.clone());
        for sql in pack.values.discovery.clone() {
            let used = SqlUse {
                what: SqlKind::Discovery,
                platform: &pack.values.platform,
                target: &target,
            };
            pack.values.enabled &= checking
                .is_sound(&format!("discovery of the pack {name}"), &used, &sql)
                .await;
        }
        if let Value::Object(extra) = &pack.values.extra {
            for (key, value) in extra {
                pack.values.enabled &= checking
                    .are_sound(&format!("{key} of the pack {name}"), key, value, &target)
                    .await;
            }
        }
        for query in &mut pack.queries {
            let platform = if query.platform.is_empty() {
                &pack.values.platform
            } else {
                &query.platform
            };
            let used = SqlUse {
                what: SqlKind::Query,
                platform,
                target: &target,
            };
            query.enabled &= checking
                .is_sound(&format!("{name}/{}", query.name), &used, &query.sql)
                .await;
        }
    }
    for query in &mut wanted.queries {
        let used = SqlUse {
            what: SqlKind::Query,
            platform: &query.platform,
            target: &query.target,
        };
        query.enabled &= checking.is_sound(&query.name, &used, &query.sql).await;
    }
    for decorator in &mut wanted.decorators {
        let used = SqlUse {
            what: SqlKind::Decorator,
            platform: "",
            target: &decorator.target,
        };
        decorator.enabled &= checking.is_sound("decorators", &used, &decorator.sql).await;
    }
    for path in &mut wanted.file_paths {
        for sql in path.queries.clone() {
            let used = SqlUse {
                what: SqlKind::FilePathQuery,
                platform: "",
                target: &path.target,
            };
            path.enabled &= checking
                .is_sound(&format!("file path {}", path.category), &used, &sql)
                .await;
        }
    }
    for section in &mut wanted.sections {
        let (key, target) = (section.key.clone(), section.target.clone());
        if let Some(sentence) = check_key(&key) {
            checking.note(&key, &sentence);
            section.enabled = false;
        }
        section.enabled &= checking
            .are_sound(&key, &key, &section.value, &target)
            .await;
    }
    let notes = checking.notes;
    wanted.notes.extend(notes);
}

struct Checking<'a> {
    app: &'a App,
    conn: &'a mut Conn,
    notes: Vec<Note>,
    /// What is sound and makes tables or views that other SQL of the import may read.
    brought: Vec<(String, Value)>,
    /// What is known with these; loaded when it is first asked for.
    checker: Option<Arc<Checker>>,
}

impl Checking<'_> {
    /// Finds what makes tables and views and is sound, whatever the order: a view may read another one, or an automatic table.
    async fn bring(&mut self, wanted: &Wanted) {
        let of_sections = (wanted.sections.iter())
            .filter(|section| check_key(&section.key).is_none())
            .map(|section| (&section.key, &section.value, &section.target));
        let of_packs = wanted.packs.iter().flat_map(|pack| {
            let members = pack.values.extra.as_object().into_iter().flatten();
            members.map(|(key, value)| (key, value, &pack.values.target))
        });
        let makes_something = |key: &str| matches!(key, AUTO_TABLES | "views");
        let mut left: Vec<(&String, &Value, &String)> = of_sections
            .chain(of_packs)
            .filter(|(key, _, _)| makes_something(key))
            .collect();
        for _ in 0..MAX_ROUNDS {
            let before = left.len();
            let mut unsound = Vec::new();
            for (key, value, target) in left {
                self.brought.push((key.clone(), value.clone()));
                self.checker = None;
                if self.flaws(key, value, target, 1).await.is_empty() {
                    continue;
                }
                self.brought.pop();
                self.checker = None;
                unsound.push((key, value, target));
            }
            left = unsound;
            if left.is_empty() || left.len() == before {
                return;
            }
        }
    }

    async fn look(&mut self, used: &SqlUse<'_>, sql: &str) -> Result<(), SqlProblem> {
        let checker = match self.checker.take() {
            Some(checker) => checker,
            None => {
                let brought = Brought::Values(&self.brought);
                self.app.sql_checkers.load(self.conn, brought).await?
            }
        };
        let loaded = Brought::Loaded(&checker);
        let looked = check_sql_among(self.conn, self.app, used, sql, loaded).await;
        self.checker = Some(checker);
        looked
    }

    async fn is_sound(&mut self, place: &str, used: &SqlUse<'_>, sql: &str) -> bool {
        match self.look(used, sql).await {
            Ok(()) => true,
            Err(problem) => {
                self.note(place, &problem.to_string());
                false
            }
        }
    }

    fn note(&mut self, place: &str, sentence: &str) {
        self.notes.push(Note {
            kind: "danger",
            place: place.to_owned(),
            text: format!("It comes in switched off. {sentence}"),
        });
    }

    /// The shape of free JSON, and the statements in it.
    async fn are_sound(&mut self, place: &str, key: &str, value: &Value, target: &str) -> bool {
        let flaws = self.flaws(key, value, target, usize::MAX).await;
        for (own, sentence) in &flaws {
            let place = match own.as_str() {
                "" => place.to_owned(),
                own => format!("{place}, {own}"),
            };
            self.note(&place, sentence);
        }
        flaws.is_empty()
    }

    /// What is wrong with free JSON, each with its place in it, and no more than `most`. Its own views and tables are known to its SQL.
    async fn flaws(
        &mut self,
        key: &str,
        value: &Value,
        target: &str,
        most: usize,
    ) -> Vec<(String, String)> {
        let shape = check_value(key, value).into_iter();
        let mut flaws: Vec<(String, String)> =
            shape.map(|sentence| (String::new(), sentence)).collect();
        for statement in statements(key, value) {
            if flaws.len() >= most {
                break;
            }
            let used = SqlUse::of_statement(&statement, target);
            if let Err(problem) = self.look(&used, &statement.sql).await {
                flaws.push((statement.place.clone(), problem.to_string()));
            }
        }
        flaws
    }
}
