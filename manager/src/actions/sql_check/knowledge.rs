//! What the check knows beside osquery's own tables: tables that nodes reported, automatic tables and views of configs.

use std::sync::{Arc, Mutex, PoisonError};

use ostiary_domain::table_denial::AUTO_TABLES;
use ostiary_sql_check::{Checker, Column, Extras, Platforms, Table, View};
use ostiary_store::{Conn, packs, sections, table_denials};
use serde_json::{Map, Value};

/// The checker of what is known at present. Its databases are kept as long as that does not change.
#[derive(Debug, Default)]
pub struct SqlCheckers {
    present: Mutex<Option<Arc<Checker>>>,
}

impl SqlCheckers {
    /// The checker of what is known as the connection sees it, an open transaction included.
    ///
    /// # Errors
    /// Postgres failed.
    pub(super) async fn load(&self, conn: &mut Conn) -> ostiary_store::Result<Arc<Checker>> {
        let extras = extras(conn).await?;
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        match &*present {
            Some(checker) if *checker.extras() == extras => Ok(Arc::clone(checker)),
            _ => Ok(Arc::clone(present.insert(Arc::new(Checker::new(extras))))),
        }
    }
}

async fn extras(conn: &mut Conn) -> ostiary_store::Result<Extras> {
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
    for section in sections::list(conn).await? {
        add(&mut extras, &section.values.key, &section.values.value);
    }
    for pack in packs::list(conn).await? {
        for key in [AUTO_TABLES, "views"] {
            if let Some(value) = pack.extra.get(key) {
                add(&mut extras, key, value);
            }
        }
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
    if columns.iter().all(|column| column.name != "path") {
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
                    if !known.columns.iter().any(|own| own.name == column.name) {
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
