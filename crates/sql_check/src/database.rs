//! A database in memory with empty tables, and an authorizer that permits what osquery's does, less everything that writes.
//!
//! Each set of platforms has two: with the hidden columns of osquery's tables, and without. SQLite knows hidden columns of virtual
//! tables only, which cannot be made without unsafe code; a query that names one fits the first, one that counts on their absence
//! from `*` the second.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, Result};

use crate::functions;
use crate::platform::Platforms;
use crate::schema::tables;

/// A table that osquery does not ship: of an extension, or made by the config.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Where it is known to exist.
    pub platforms: Platforms,
    /// In its order.
    pub columns: Vec<Column>,
}

/// A column of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Is it left out of `*`?
    pub hidden: bool,
}

/// A view of the config.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// Its name.
    pub name: String,
    /// The SELECT behind it.
    pub sql: String,
}

/// What there is beside osquery's own tables. A name that osquery ships is not replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Extras {
    /// Tables; one that SQLite cannot make is left out.
    pub tables: Vec<Table>,
    /// Views; one whose SELECT does not fit is left out.
    pub views: Vec<View>,
}

/// A table or view that was left out, because SQLite cannot make it. SQL that names it is told that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// Its name.
    pub name: String,
    /// Why, as a sentence.
    pub problem: String,
}

/// What SQLite asked for while it prepared a statement.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Tables and their columns (`""` when only the table counted), as they are spelt in the schema.
    pub(crate) reads: BTreeSet<(String, String)>,
    /// Functions, in lower case.
    pub(crate) functions: BTreeSet<String>,
    /// What was refused.
    pub(crate) refused: Option<Refused>,
    /// Are pragmas about tables permitted?
    pub(crate) pragmas: bool,
}

/// What the authorizer refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A statement that writes or changes something.
    Write,
    /// A pragma, by name.
    Pragma(String),
    /// A function that osquery does not offer.
    Function(String),
    /// An inner table of SQLite.
    Table(String),
}

/// The database of one set of platforms.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    /// What was left out.
    pub(crate) odd: Vec<Odd>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

/// Pragmas that osquery permits (`kAllowedSQLitePragmas` in `osquery/sql/sqlite_util.h`), less those that change something.
const PRAGMAS: [&str; 4] = [
    "table_info",
    "table_xinfo",
    "function_list",
    "collation_list",
];

/// Of SQLite itself, unknown to osquery or none of its business.
const FOREIGN_FUNCTIONS: [&str; 3] = ["load_extension", "fts3_tokenizer", "sqlite_offset"];
const FOREIGN_TABLES: [&str; 5] = [
    "dbstat",
    "sqlite_dbpage",
    "sqlite_stmt",
    "bytecode",
    "tables_used",
];

/// What SQLite may use for all its databases together, in bytes: common table expressions can double at each step.
const HEAP_BYTES: i64 = 128 * 1024 * 1024;

/// How often SQLite may report progress while it prepares one statement.
const MAX_STEPS: u32 = 200_000;

impl Database {
    /// Makes the tables of these platforms. `hidden`: with hidden columns.
    pub(crate) fn open(platforms: Platforms, hidden: bool, extras: &Extras) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_MEMORY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_in_memory_with_flags(flags)?;
        bound(&connection)?;
        functions::register(&connection)?;
        connection.execute_batch(&shipped(platforms, hidden))?;
        let odd = add(&connection, platforms, hidden, extras);
        connection.execute_batch(&format!("PRAGMA hard_heap_limit = {HEAP_BYTES};"))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let own = Arc::clone(&seen);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let mut seen = own.lock().unwrap_or_else(PoisonError::into_inner);
            seen.permit(&context.action)
        }))?;
        Ok(Self {
            connection,
            odd,
            seen,
        })
    }

    /// Lets SQLite prepare a statement and forget it again. Gives the names of its columns.
    pub(crate) fn prepare(&self, sql: &str, pragmas: bool) -> Result<Vec<String>> {
        *self.seen() = Seen {
            pragmas,
            ..Seen::default()
        };
        let mut steps = 0;
        self.connection.progress_handler(
            1000,
            Some(move || {
                steps += 1;
                steps > MAX_STEPS / 1000
            }),
        )?;
        let statement = self.connection.prepare(sql)?;
        if !statement.readonly() {
            self.seen().refused = Some(Refused::Write);
        }
        Ok(statement
            .column_names()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect())
    }

    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn permit(&mut self, action: &AuthAction<'_>) -> Authorization {
        let refused = match action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read {
                table_name,
                column_name,
            } => {
                let foreign = FOREIGN_TABLES
                    .iter()
                    .any(|table| table.eq_ignore_ascii_case(table_name));
                self.reads
                    .insert(((*table_name).to_owned(), (*column_name).to_owned()));
                foreign.then(|| Refused::Table((*table_name).to_owned()))
            }
            AuthAction::Function { function_name } => {
                let name = function_name.to_ascii_lowercase();
                let foreign = FOREIGN_FUNCTIONS.contains(&name.as_str());
                self.functions.insert(name.clone());
                foreign.then_some(Refused::Function(name))
            }
            AuthAction::Pragma { pragma_name, .. } => {
                let name = pragma_name.to_ascii_lowercase();
                let permitted = self.pragmas && PRAGMAS.contains(&name.as_str());
                (!permitted).then_some(Refused::Pragma(name))
            }
            _ => Some(Refused::Write),
        };
        match refused {
            None => Authorization::Allow,
            Some(refused) => {
                self.refused.get_or_insert(refused);
                Authorization::Deny
            }
        }
    }
}

/// Bounds what hostile SQL can make SQLite do: how deep its parser calls itself, and how much it builds of few words.
fn bound(connection: &Connection) -> Result<()> {
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1024 * 1024),
        (Limit::SQLITE_LIMIT_LENGTH, 1024 * 1024),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200),
        (Limit::SQLITE_LIMIT_VDBE_OP, 500_000),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(())
}

/// osquery's own tables.
fn shipped(platforms: Platforms, hidden: bool) -> String {
    let mut sql = String::from("BEGIN;");
    for (name, table) in tables() {
        if !table.platforms.and(platforms).is_empty() {
            let columns = table.columns.iter();
            let columns = columns.filter(|column| hidden || !column.hidden);
            let columns = columns.map(|column| format!("{} {}", quoted(column.name), column.kind));
            sql.push_str(&created(name, columns));
        }
    }
    sql.push_str("COMMIT;");
    sql
}

/// Adds tables and views one by one: they are text of nodes and of people, and what SQLite does not take must not spoil the rest.
fn add(connection: &Connection, platforms: Platforms, hidden: bool, extras: &Extras) -> Vec<Odd> {
    let mut odd = Vec::new();
    let mut make = |name: &str, sql: Result<String, String>| {
        let made = sql.and_then(|sql| {
            let made = connection.execute_batch(&sql);
            made.map_err(|error| format!("SQLite cannot make it: {}.", said(&error)))
        });
        if let Err(problem) = made {
            odd.push(Odd {
                name: name.to_owned(),
                problem,
            });
        }
    };
    for table in &extras.tables {
        if crate::schema::is_shipped(&table.name) || table.platforms.and(platforms).is_empty() {
            continue;
        }
        let columns = table.columns.iter();
        let columns = columns.filter(|column| hidden || !column.hidden);
        let columns = columns.map(|column| quoted(&column.name));
        make(&table.name, Ok(created(&table.name, columns)));
    }
    for view in &extras.views {
        let sql = crate::check::form(&view.sql, false);
        let sql = sql.map(|sql| format!("CREATE VIEW {} AS {sql}", quoted(&view.name)));
        make(&view.name, sql.map_err(|problem| problem.message));
    }
    odd
}

fn said(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(msg)) => msg.clone(),
        other => other.to_string(),
    }
}

fn created(name: &str, columns: impl Iterator<Item = String>) -> String {
    let columns: Vec<String> = columns.collect();
    if columns.is_empty() {
        return String::new();
    }
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({});",
        quoted(name),
        columns.join(",")
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
