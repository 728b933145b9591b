//! The check itself: what may be asked, and what is answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::database::{Database, Extras, Odd, Refused, Seen};
use crate::functions::CARVE;
use crate::meaning::Meaning;
use crate::platform::Platforms;
use crate::schema::tables;
use crate::words::{depth, is_one_statement, second_statement, statement, words};

/// The longest SQL that is looked at, in bytes.
pub const MAX_SQL_BYTES: usize = 256 * 1024;

/// The deepest nesting of brackets that is looked at: SQLite's parser calls itself at each.
const MAX_DEPTH: usize = 100;

/// How SQL is to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where it shall run.
    pub platforms: Platforms,
    /// Lowest version of osquery that it shall run on, as in `5.2.0`; empty for any, which warns of nothing.
    pub version: &'a str,
    /// Tables that do not exist here, in lower case, each with the reason.
    pub denied: &'a BTreeMap<String, String>,
    /// Are osquery's pragmas about tables permitted, as in a live query?
    pub pragmas: bool,
    /// Does it run on another database, whose tables nobody knows? Then only its form is checked.
    pub foreign_tables: bool,
}

/// SQL that may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// The known tables that it reads, also through views.
    pub tables: BTreeSet<String>,
    /// The columns of its result, in order; unknown with foreign tables.
    pub columns: Vec<String>,
    /// What may surprise, in whole sentences.
    pub warnings: Vec<String>,
    /// The first version of osquery that has all of osquery's own tables and columns that it reads; empty when it reads none.
    pub since: String,
    /// Does it read tables that osquery does not ship, or views?
    pub reads_extras: bool,
}

/// A place in a text, counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 0, in bytes.
    pub byte: usize,
    /// Line.
    pub line: usize,
    /// Character in the line.
    pub column: usize,
}

impl Position {
    /// The place of a byte of a text.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &text[..byte];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            byte,
            line: before.matches('\n').count() + 1,
            column: before[line..].chars().count() + 1,
        }
    }
}

/// Why SQL may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// A sentence.
    pub message: String,
    /// Where, if that is known.
    pub position: Option<Position>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
        }
    }

    pub(crate) fn at(message: impl Into<String>, sql: &str, byte: Option<usize>) -> Self {
        Self {
            message: message.into(),
            position: byte.map(|byte| Position::of(sql, byte)),
        }
    }
}

type Databases = HashMap<(Platforms, bool), Arc<Mutex<Database>>>;

/// Checks SQL. Databases are made when they are first needed and then kept; it may be used from many threads.
pub struct Checker {
    pub(crate) extras: Extras,
    databases: Mutex<Databases>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker")
            .field("extras", &self.extras)
            .finish_non_exhaustive()
    }
}

impl Checker {
    /// A checker that knows these tables and views beside osquery's own.
    #[must_use]
    pub fn new(extras: Extras) -> Self {
        Self {
            extras,
            databases: Mutex::default(),
        }
    }

    /// What it knows beside osquery's own tables.
    #[must_use]
    pub fn extras(&self) -> &Extras {
        &self.extras
    }

    /// Which of that SQLite cannot make: it counts as not there.
    #[must_use]
    pub fn odd(&self) -> Vec<Odd> {
        self.odd_of(Platforms::ALL)
    }

    fn odd_of(&self, platforms: Platforms) -> Vec<Odd> {
        let database = self.database(platforms, true);
        database.map_or_else(
            |_| Vec::new(),
            |database| {
                let database = database.lock().unwrap_or_else(PoisonError::into_inner);
                database.odd.clone()
            },
        )
    }

    /// May this SQL be used so? Takes well under a millisecond once the databases of these platforms are made, which takes some.
    ///
    /// # Errors
    /// What is wrong, in a sentence and with its place.
    pub fn check(&self, question: &Question<'_>, sql: &str) -> Result<Checked, Problem> {
        let one = form(sql, question.pragmas)?;
        let first = self.prepare(question, one, true);
        let (columns, seen) = match first {
            Ok(found) => found,
            Err(Failed::Sqlite(failed)) => {
                let (error, seen) = *failed;
                // Without hidden columns a `*` has as many columns as on a node.
                let again = self.prepare(question, one, false);
                match again {
                    Ok(found) => found,
                    Err(_) if question.foreign_tables && Meaning::is_of_names(&error) => {
                        return Ok(Checked::default());
                    }
                    Err(_) => {
                        let odd = self.odd_of(question.platforms);
                        return Err(self.meaning(question, sql).explain(&error, &seen, &odd));
                    }
                }
            }
            Err(Failed::Broken(problem)) => return Err(problem),
        };
        if let Some(refused) = &seen.refused {
            return Err(refused.explain(sql));
        }
        self.denied(question, sql, &seen)?;
        let tables = self.known(&seen);
        let meaning = self.meaning(question, sql);
        Ok(Checked {
            warnings: meaning.warnings(&seen),
            since: meaning.since(&seen),
            reads_extras: self.reads_extras(sql, &tables),
            tables,
            columns,
        })
    }

    fn meaning<'a>(&'a self, question: &'a Question<'a>, sql: &'a str) -> Meaning<'a> {
        Meaning {
            extras: &self.extras,
            question,
            sql,
        }
    }

    fn known(&self, seen: &Seen) -> BTreeSet<String> {
        let reads = seen.reads.iter().map(|(table, _)| table);
        let mut known: BTreeSet<String> = reads
            .filter(|table| {
                tables().contains_key(table.to_ascii_lowercase().as_str())
                    || self
                        .extras
                        .tables
                        .iter()
                        .any(|extra| extra.name.eq_ignore_ascii_case(table))
            })
            .map(|table| table.to_ascii_lowercase())
            .collect();
        if seen.functions.contains(CARVE) {
            known.insert("carves".to_owned());
        }
        known
    }

    fn reads_extras(&self, sql: &str, read: &BTreeSet<String>) -> bool {
        read.iter().any(|table| !crate::schema::is_shipped(table))
            || self
                .extras
                .views
                .iter()
                .any(|view| place_of(sql, &view.name).is_some())
    }

    fn denied(&self, question: &Question<'_>, sql: &str, seen: &Seen) -> Result<(), Problem> {
        for table in self.known(seen) {
            if let Some(reason) = question.denied.get(&table) {
                let place = place_of(sql, &table)
                    .or_else(|| place_of(sql, CARVE).filter(|_| table == "carves"));
                let message = format!("The table {table} cannot be used here: {reason}");
                return Err(Problem::at(message, sql, place));
            }
        }
        Ok(())
    }

    fn prepare(
        &self,
        question: &Question<'_>,
        sql: &str,
        hidden: bool,
    ) -> Result<(Vec<String>, Seen), Failed> {
        let database = self.database(question.platforms, hidden).map_err(|error| {
            Failed::Broken(Problem::new(format!("The check does not work: {error}.")))
        })?;
        let database = database.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = database.prepare(sql, question.pragmas);
        let seen = std::mem::take(&mut *database.seen());
        match columns {
            Ok(columns) => Ok((columns, seen)),
            Err(error) => Err(Failed::Sqlite(Box::new((error, seen)))),
        }
    }

    fn database(
        &self,
        platforms: Platforms,
        hidden: bool,
    ) -> rusqlite::Result<Arc<Mutex<Database>>> {
        let mut databases = self
            .databases
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = databases.get(&(platforms, hidden)) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Mutex::new(Database::open(platforms, hidden, &self.extras)?));
        databases.insert((platforms, hidden), Arc::clone(&made));
        Ok(made)
    }
}

enum Failed {
    Sqlite(Box<(rusqlite::Error, Seen)>),
    Broken(Problem),
}

/// What can be said without SQLite: one statement, of a kind that only reads, of bearable size.
pub(crate) fn form(sql: &str, pragmas: bool) -> Result<&str, Problem> {
    if sql.len() > MAX_SQL_BYTES {
        return Err(Problem::new(format!(
            "This is too long: at most {MAX_SQL_BYTES} bytes."
        )));
    }
    if let Some(at) = sql.find('\0') {
        return Err(Problem::at("There is a NUL character.", sql, Some(at)));
    }
    let Some(one) = statement(sql) else {
        let message =
            "There are several statements: osquery keeps the columns of the first only. Use one.";
        return Err(Problem::at(message, sql, second_statement(sql)));
    };
    if !is_one_statement(one) {
        return Err(Problem::new("There is no statement."));
    }
    if depth(one) > MAX_DEPTH {
        return Err(Problem::new("The brackets are nested too deeply."));
    }
    let Some(first) = words(one).next() else {
        return Err(Problem::new("There is no statement."));
    };
    let verb = first.text.to_ascii_uppercase();
    match verb.as_str() {
        "SELECT" | "WITH" | "VALUES" => Ok(one),
        "PRAGMA" if pragmas => Ok(one),
        _ if first.is_name && verb.len() <= 20 => {
            let message = format!("Only a SELECT may stand here, not {verb}.");
            Err(Problem::at(message, sql, Some(first.at)))
        }
        _ => Err(Problem::at(
            "Only a SELECT may stand here.",
            sql,
            Some(first.at),
        )),
    }
}

impl Refused {
    pub(crate) fn explain(&self, sql: &str) -> Problem {
        match self {
            Self::Write => {
                Problem::new("This would write or change something. Only reading is allowed.")
            }
            Self::Pragma(name) => {
                let message = format!("The pragma {name} cannot be used here.");
                Problem::at(message, sql, place_of(sql, name))
            }
            Self::Function(name) => {
                let message = format!("osquery has no function {name}().");
                Problem::at(message, sql, place_of(sql, name))
            }
            Self::Table(name) => {
                let message = format!("osquery has no table {name}.");
                Problem::at(message, sql, place_of(sql, name))
            }
        }
    }
}

/// Where a name stands for the first time, in bytes.
pub(crate) fn place_of(sql: &str, name: &str) -> Option<usize> {
    words(sql)
        .find(|word| word.is_name && word.text.eq_ignore_ascii_case(name))
        .map(|word| word.at)
}
