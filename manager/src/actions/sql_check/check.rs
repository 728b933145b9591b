//! The contract of the check: what SQL is used for, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::section::{Statement, StatementKind};
use ostiary_domain::table_denial::{AUTO_TABLES, TableDenial, may_reach, platforms_of};
use ostiary_domain::target::Target;
use ostiary_sql_check::{Checked, Platforms, Problem, Question};
use ostiary_store::{Conn, node_lists, table_denials};
use uuid::Uuid;

use super::knowledge::Brought;
use crate::actions::validate::Check;
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

impl<'a> SqlUse<'a> {
    /// The use of a statement inside free JSON of a config.
    pub(crate) fn of_statement(statement: &'a Statement, target: &'a str) -> Self {
        Self {
            what: match statement.kind {
                StatementKind::View => SqlKind::View,
                StatementKind::AutoTable => SqlKind::AutoTable,
                StatementKind::FilePathQuery => SqlKind::FilePathQuery,
                StatementKind::Decorator => SqlKind::Decorator,
            },
            platform: &statement.platform,
            target,
        }
    }
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

impl From<Problem> for SqlProblem {
    fn from(problem: Problem) -> Self {
        Self {
            message: problem.message,
            position: problem.position.map(|at| Position {
                line: at.line,
                column: at.column,
            }),
        }
    }
}

impl From<ostiary_store::Error> for SqlProblem {
    fn from(error: ostiary_store::Error) -> Self {
        tracing::warn!(error = format!("{error:#}"), "SQL cannot be checked");
        Self::new(
            "It cannot be checked at the moment, since the database does not answer. Try again in a minute.",
        )
    }
}

/// What is known of SQL that may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Looked {
    /// The tables that it reads, in lower case.
    pub(crate) tables: Vec<String>,
    /// The columns of its result, in order.
    pub(crate) columns: Vec<String>,
    /// What may surprise, in sentences.
    pub(crate) warnings: Vec<String>,
    /// Where every table exists that it reads, as osquery calls platforms; of discoveries only.
    #[serde(skip)]
    pub(crate) platforms: Vec<String>,
    /// From which version of osquery on they do; empty for any.
    #[serde(skip)]
    pub(crate) since: String,
}

/// May this SQL be used so? The problem is fit to be shown beside a field. A check that cannot be made because Postgres fails
/// refuses, too: SQL that nobody has looked at is not handed out. Which tables it reads is remembered, so that it is not handed to
/// nodes that are denied them later.
///
/// # Errors
/// What is wrong.
pub(crate) async fn check_sql(
    conn: &mut Conn,
    app: &App,
    used: &SqlUse<'_>,
    sql: &str,
) -> Result<(), SqlProblem> {
    check_sql_among(conn, app, used, sql, Brought::default()).await
}

/// As [`check_sql`], of SQL that may also read the tables and views which come with it.
///
/// # Errors
/// What is wrong.
pub(crate) async fn check_sql_among(
    conn: &mut Conn,
    app: &App,
    used: &SqlUse<'_>,
    sql: &str,
    brought: Brought<'_>,
) -> Result<(), SqlProblem> {
    let looked = look(conn, app, used, sql, brought).await?;
    // An automatic table runs its SQL on a file of the node: it says nothing about the same text as a query.
    if used.what != SqlKind::AutoTable {
        table_denials::note_sql(conn, sql, &Ok(looked.tables), app.now()).await?;
    }
    Ok(())
}

/// As [`check_sql_among`], without remembering anything, and with what is known of the SQL.
///
/// # Errors
/// What is wrong.
pub(crate) async fn look(
    conn: &mut Conn,
    app: &App,
    used: &SqlUse<'_>,
    sql: &str,
    brought: Brought<'_>,
) -> Result<Looked, SqlProblem> {
    // A target that cannot be read is said at its own field; here it means every node.
    let target = Target::parse(used.target).unwrap_or(Target::All);
    let written = Platforms::of_condition(used.platform);
    let reached = written.and(platforms(&target));
    let whom = Whom {
        platforms: if reached.is_empty() { written } else { reached },
        target: Some(target),
        nodes: &[],
        brought,
    };
    whom.look(conn, app, used.what, sql).await
}

/// As [`look`], for SQL that goes to the nodes of a target, if there is one, and to these nodes besides.
///
/// # Errors
/// What is wrong.
pub(crate) async fn look_for_nodes(
    conn: &mut Conn,
    app: &App,
    what: SqlKind,
    (target, nodes): (Option<Target>, &[Uuid]),
    sql: &str,
) -> Result<Looked, SqlProblem> {
    let everybody = if nodes.is_empty() {
        Vec::new()
    } else {
        node_lists::facts(conn).await?
    };
    let of_nodes = everybody
        .iter()
        .filter(|(id, _)| nodes.contains(&id.0))
        .map(|(_, facts)| Platforms::named(&facts.platform).unwrap_or(Platforms::ALL))
        .fold(Platforms::NONE, Platforms::or);
    let reached = target
        .as_ref()
        .map_or(Platforms::NONE, platforms)
        .or(of_nodes);
    let whom = Whom {
        platforms: if reached.is_empty() {
            Platforms::ALL
        } else {
            reached
        },
        target,
        nodes,
        brought: Brought::default(),
    };
    whom.look(conn, app, what, sql).await
}

fn platforms(target: &Target) -> Platforms {
    let names = platforms_of(target, &["linux", "darwin", "windows"]);
    let each = names.into_iter().filter_map(Platforms::named);
    each.fold(Platforms::NONE, Platforms::or)
}

/// Whom SQL goes to.
struct Whom<'a> {
    platforms: Platforms,
    target: Option<Target>,
    nodes: &'a [Uuid],
    brought: Brought<'a>,
}

impl Whom<'_> {
    async fn look(
        &self,
        conn: &mut Conn,
        app: &App,
        what: SqlKind,
        sql: &str,
    ) -> Result<Looked, SqlProblem> {
        let checked = self.prepare(conn, app, what, sql, BTreeMap::new()).await?;
        let mut tables: Vec<String> = checked.tables.iter().cloned().collect();
        if what == SqlKind::AutoTable {
            tables.push(AUTO_TABLES.to_owned());
        }
        let mut denials = table_denials::list_values(conn).await?;
        denials.retain(|denial| denial.denies_any(tables.iter()));
        // Nearly always there is none, and the nodes need not be loaded.
        if !denials.is_empty() {
            let everybody = node_lists::facts(conn).await?;
            for denial in denials
                .iter()
                .filter(|denial| self.reaches(denial, &everybody))
            {
                if what == SqlKind::AutoTable
                    && denial.tables.iter().any(|table| table == AUTO_TABLES)
                {
                    let message =
                        format!("Automatic tables cannot be used here: {}", denial.reason);
                    return Err(SqlProblem::new(message));
                }
                let reasons = denial
                    .tables
                    .iter()
                    .map(|table| (table.clone(), denial.reason.clone()));
                self.prepare(conn, app, what, sql, reasons.collect())
                    .await?;
            }
        }
        let platforms = if what == SqlKind::Discovery {
            self.where_it_runs(conn, app, sql, &checked).await?
        } else {
            Vec::new()
        };
        Ok(Looked {
            tables,
            platforms,
            columns: checked.columns,
            warnings: checked.warnings,
            since: checked.since,
        })
    }

    /// The platforms on which SQL cannot fail. None, if it reads what not every osqueryd of a platform has.
    async fn where_it_runs(
        &self,
        conn: &mut Conn,
        app: &App,
        sql: &str,
        checked: &Checked,
    ) -> Result<Vec<String>, SqlProblem> {
        let mut found = Vec::new();
        for platforms in self.platforms.each().filter(|_| !checked.reads_extras) {
            let one = Whom {
                platforms,
                target: None,
                nodes: &[],
                brought: self.brought,
            };
            let prepared = one.prepare(conn, app, SqlKind::Discovery, sql, BTreeMap::new());
            if prepared.await.is_ok() {
                found.extend(platforms.names().into_iter().map(ToOwned::to_owned));
            }
        }
        Ok(found)
    }

    fn reaches(
        &self,
        denial: &TableDenial,
        everybody: &[(ostiary_domain::ids::NodeId, NodeFacts)],
    ) -> bool {
        let denied = denial.nodes();
        let by_name = everybody
            .iter()
            .any(|(id, facts)| self.nodes.contains(&id.0) && denied.matches(facts));
        by_name
            || self.target.as_ref().is_some_and(|target| {
                may_reach(target, &denied, everybody.iter().map(|(_, facts)| facts))
            })
    }

    async fn prepare(
        &self,
        conn: &mut Conn,
        app: &App,
        what: SqlKind,
        sql: &str,
        denied: BTreeMap<String, String>,
    ) -> Result<Checked, SqlProblem> {
        let checker = app.sql_checkers.load(conn, self.brought).await?;
        let (platforms, sql) = (self.platforms, sql.to_owned());
        // Strange SQL may take SQLite a second.
        let checked = tokio::task::spawn_blocking(move || {
            let question = Question {
                platforms,
                version: "",
                denied: &denied,
                pragmas: what == SqlKind::LiveQuery,
                foreign_tables: what == SqlKind::AutoTable,
            };
            checker.check(&question, &sql)
        });
        match checked.await {
            Ok(checked) => Ok(checked?),
            Err(error) => {
                tracing::error!(%error, "the check of SQL failed");
                Err(SqlProblem::new(
                    "It cannot be checked: that is a defect of Ostiary. The log says more.",
                ))
            }
        }
    }
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
