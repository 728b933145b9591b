//! What the check knows beside osquery's own tables: tables that nodes reported, automatic tables and views of configs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ostiary_domain::node_config::TablesOfSql;
use ostiary_domain::table_denial::AUTO_TABLES;
use ostiary_sql_check::{Checker, Column, Extras, Odd, Platforms, Table, View};
use ostiary_store::table_denials::{self, SqlReads};
use ostiary_store::{Conn, packs, sections};
use serde_json::{Map, Value};

/// What makes tables or views and comes with what is checked, but is not stored yet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Brought<'a> {
    /// Values by their top-level keys of a config. What is stored is loaded for each check.
    Values(&'a [(String, Value)]),
    /// What was loaded before, with what comes: for many checks in a row.
    Loaded(&'a Arc<Checker>),
}

impl Default for Brought<'_> {
    fn default() -> Self {
        Self::Values(&[])
    }
}

/// The checker of what is known at present. Its databases are kept as long as that does not change.
#[derive(Debug, Default)]
pub struct SqlCheckers {
    present: Mutex<Option<Arc<Checker>>>,
    /// What the last look at all SQL found out, and of which tables and views that holds.
    read: Mutex<Option<(Extras, TablesOfSql)>>,
}

impl SqlCheckers {
    /// The checker of what is known as the connection sees it, an open transaction included.
    ///
    /// # Errors
    /// Postgres failed.
    pub(crate) async fn load(
        &self,
        conn: &mut Conn,
        brought: Brought<'_>,
    ) -> ostiary_store::Result<Arc<Checker>> {
        let values = match brought {
            Brought::Values(values) => values,
            Brought::Loaded(checker) => return Ok(Arc::clone(checker)),
        };
        let extras = extras(conn, values).await?;
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        match &*present {
            Some(checker) if *checker.extras() == extras => Ok(Arc::clone(checker)),
            _ => Ok(Arc::clone(present.insert(Arc::new(Checker::new(extras))))),
        }
    }

    /// What SQL reads, of that which need not be looked at again: nothing that the checker knows has changed since.
    pub(super) fn known(&self, checker: &Checker) -> TablesOfSql {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((extras, tables)) if extras == checker.extras() => tables.clone(),
            _ => TablesOfSql::default(),
        }
    }

    /// Remembers what all SQL reads. What nobody could say is looked at again.
    pub(super) fn remember(&self, checker: &Checker, read: &BTreeMap<String, SqlReads>) {
        let tables = read
            .iter()
            .filter_map(|(sql, reads)| Some((sql.clone(), reads.as_ref().ok()?.clone())));
        let read = (checker.extras().clone(), tables.collect());
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
    }
}

/// Tables and views of which the check knows no more than the name, since SQLite cannot make them: SQL that reads them is refused.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn odd_tables(
    checkers: &SqlCheckers,
    conn: &mut Conn,
) -> ostiary_store::Result<Vec<Odd>> {
    Ok(checkers.load(conn, Brought::default()).await?.odd())
}

async fn extras(conn: &mut Conn, brought: &[(String, Value)]) -> ostiary_store::Result<Extras> {
    let mut extras = Extras::default();
    for table in table_denials::list_known(conn).await? {
        extras.tables.push(Table {
            platforms: Platforms::named(&table.platform).unwrap_or(Platforms::ALL),
            name: table.name,
            columns: table
                .columns
                .into_iter()
                .map(|column| Column {
                    name: column.name,
                    hidden: column.hidden,
                })
                .collect(),
        });
    }
    // What is switched off is on no node. Those of packs stay: their own queries are written while the pack is still off.
    let sections = sections::list(conn).await?.into_iter();
    for section in sections.filter(|section| section.values.enabled) {
        add(&mut extras, &section.values.key, &section.values.value);
    }
    for pack in packs::list(conn).await? {
        for key in [AUTO_TABLES, "views"] {
            if let Some(value) = pack.extra.get(key) {
                add(&mut extras, key, value);
            }
        }
    }
    for (key, value) in brought {
        // Of a view there is one: that which comes.
        if let (Value::Object(entries), "views") = (value, key.as_str()) {
            let comes = |name: &str| entries.keys().any(|own| own.eq_ignore_ascii_case(name));
            extras.views.retain(|view| !comes(&view.name));
        }
        add(&mut extras, key, value);
    }
    Ok(merged(extras))
}

/// A piece of a config that makes tables or views.
fn add(extras: &mut Extras, key: &str, value: &Value) {
    let Some(entries) = value.as_object() else {
        return;
    };
    for (name, entry) in entries {
        match (key, entry) {
            (AUTO_TABLES, Value::Object(entry)) => extras.tables.push(auto_table(name, entry)),
            ("views", Value::String(sql)) => extras.views.push(View {
                name: name.clone(),
                sql: sql.clone(),
            }),
            _ => {}
        }
    }
}

/// osquery adds the column `path` by itself (`osquery/config/parsers/auto_constructed_tables.cpp`).
fn auto_table(name: &str, entry: &Map<String, Value>) -> Table {
    let columns = entry.get("columns").and_then(Value::as_array);
    let columns = columns.into_iter().flatten().filter_map(Value::as_str);
    let mut columns: Vec<Column> = columns.map(shown).collect();
    let is_path = |column: &Column| column.name.eq_ignore_ascii_case("path");
    if !columns.iter().any(is_path) {
        columns.push(shown("path"));
    }
    let platform = entry.get("platform").and_then(Value::as_str);
    Table {
        name: name.to_owned(),
        platforms: Platforms::of_condition(platform.unwrap_or_default()),
        columns,
    }
}

fn shown(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        hidden: false,
    }
}

/// A table of several platforms or definitions has the columns of all: it is refused only what none has.
fn merged(extras: Extras) -> Extras {
    let mut tables: Vec<Table> = Vec::new();
    for table in extras.tables {
        let same = |known: &&mut Table| known.name.eq_ignore_ascii_case(&table.name);
        match tables.iter_mut().find(same) {
            Some(known) => {
                known.platforms = known.platforms.or(table.platforms);
                for column in table.columns {
                    let is_known = |own: &Column| own.name.eq_ignore_ascii_case(&column.name);
                    if !known.columns.iter().any(is_known) {
                        known.columns.push(column);
                    }
                }
            }
            None => tables.push(table),
        }
    }
    Extras {
        tables,
        views: extras.views,
    }
}
