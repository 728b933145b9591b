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
    /// Tables.
    pub tables: Vec<Table>,
    /// Views; one whose SELECT does not fit is left out.
    pub views: Vec<View>,
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
        functions::register(&connection)?;
        connection.execute_batch(&schema(platforms, hidden, extras))?;
        for view in &extras.views {
            // One that does not fit would fail on a node as well: queries that read it are told so.
            let sql = format!("CREATE VIEW {} AS {}", quoted(&view.name), view.sql);
            if crate::words::is_one_statement(&view.sql) {
                let _ = connection.execute_batch(&sql);
            }
        }
        connection.execute_batch(&format!("PRAGMA hard_heap_limit = {HEAP_BYTES};"))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, 1024 * 1024)?;
        connection.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 500)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let own = Arc::clone(&seen);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let mut seen = own.lock().unwrap_or_else(PoisonError::into_inner);
            seen.permit(&context.action)
        }))?;
        Ok(Self { connection, seen })
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

fn schema(platforms: Platforms, hidden: bool, extras: &Extras) -> String {
    let mut sql = String::from("BEGIN;");
    let shown = |is_hidden: bool| hidden || !is_hidden;
    for (name, table) in tables() {
        if !table.platforms.and(platforms).is_empty() {
            let columns = table.columns.iter().filter(|column| shown(column.hidden));
            let columns = columns.map(|column| format!("{} {}", quoted(column.name), column.kind));
            create(&mut sql, name, columns);
        }
    }
    for table in &extras.tables {
        if !crate::schema::is_shipped(&table.name) && !table.platforms.and(platforms).is_empty() {
            let columns = table.columns.iter().filter(|column| shown(column.hidden));
            create(
                &mut sql,
                &table.name,
                columns.map(|column| quoted(&column.name)),
            );
        }
    }
    sql.push_str("COMMIT;");
    sql
}

fn create(sql: &mut String, name: &str, columns: impl Iterator<Item = String>) {
    let columns: Vec<String> = columns.collect();
    if !columns.is_empty() {
        sql.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS {} ({});",
            quoted(name),
            columns.join(",")
        ));
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
