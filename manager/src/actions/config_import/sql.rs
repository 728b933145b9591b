//! All SQL of an import passes the check that every SQL passes. What does not pass comes in switched off, so that it can be mended here
//! and reaches no node meanwhile.

use ostiary_domain::node_config::section::{StatementKind, statements};
use ostiary_domain::node_config::section_check::{check_key, check_value};
use ostiary_store::Conn;
use serde_json::Value;

use super::report::Note;
use super::wanted::Wanted;
use crate::actions::sql_check::{SqlKind, SqlUse, check_sql};
use crate::state::App;

/// Switches off what has unsound SQL, and says so.
pub(crate) async fn check(app: &App, conn: &mut Conn, wanted: &mut Wanted) {
    let mut checking = Checking {
        app,
        conn,
        notes: Vec::new(),
    };
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
}

impl Checking<'_> {
    async fn is_sound(&mut self, place: &str, used: &SqlUse<'_>, sql: &str) -> bool {
        match check_sql(self.conn, self.app, used, sql).await {
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
        let mut sound = true;
        for sentence in check_value(key, value) {
            self.note(place, &sentence);
            sound = false;
        }
        for statement in statements(key, value) {
            let used = SqlUse {
                what: match statement.kind {
                    StatementKind::View => SqlKind::View,
                    StatementKind::AutoTable => SqlKind::AutoTable,
                    StatementKind::FilePathQuery => SqlKind::FilePathQuery,
                    StatementKind::Decorator => SqlKind::Decorator,
                },
                platform: &statement.platform,
                target,
            };
            let place = format!("{place}, {}", statement.place);
            sound &= self.is_sound(&place, &used, &statement.sql).await;
        }
        sound
    }
}
