//! What is to be said about SQL that is stored: it was fine when it was saved, but tables, views and denials change, and what was
//! imported or came with a migration nobody has looked at before.

use std::collections::BTreeMap;

use ostiary_store::{Conn, table_denials};
use serde::Serialize;

use super::check::{SqlKind, SqlUse, look};
use super::knowledge::Brought;
use crate::state::App;

/// SQL that is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredSql {
    /// What it belongs to.
    pub(crate) what: SqlKind,
    /// Which of several, in words; empty for the only one.
    pub(crate) place: String,
    /// Itself.
    pub(crate) sql: String,
    /// osquery's own condition.
    pub(crate) platform: String,
    /// Tag expression.
    pub(crate) target: String,
}

/// What is said of a piece.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Said {
    /// Which of several; empty for the only one.
    place: String,
    /// Why it could not be saved today; empty if it could.
    problem: String,
    /// What may surprise.
    warnings: Vec<String>,
}

/// What is to be said of these; of most there is nothing. Nothing is remembered.
pub(crate) async fn said_of(app: &App, conn: &mut Conn, stored: &[StoredSql]) -> Vec<Said> {
    let mut said = Vec::new();
    for one in stored {
        let used = SqlUse {
            what: one.what,
            platform: &one.platform,
            target: &one.target,
        };
        let (problem, warnings) = match look(conn, app, &used, &one.sql, Brought::default()).await {
            Ok(looked) => (String::new(), looked.warnings),
            Err(problem) => (problem.to_string(), Vec::new()),
        };
        if !problem.is_empty() || !warnings.is_empty() {
            said.push(Said {
                place: one.place.clone(),
                problem,
                warnings,
            });
        }
    }
    said
}

/// Of these texts those of which the last look found out that nobody can say what they read, with the reason.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn problems_of<'s>(
    conn: &mut Conn,
    texts: impl Iterator<Item = &'s String>,
) -> ostiary_store::Result<BTreeMap<String, String>> {
    let texts: Vec<String> = texts.cloned().collect();
    let reads = table_denials::reads_of(conn, &texts).await?.into_iter();
    Ok(reads
        .filter_map(|(sql, reads)| Some((sql, reads.err()?)))
        .collect())
}
