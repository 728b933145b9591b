//! The tables that osquery ships, read from `data/tables.tsv` once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::platform::Platforms;

/// A table of osquery.
#[derive(Debug)]
pub(crate) struct Shipped {
    /// Where it exists.
    pub(crate) platforms: Platforms,
    /// First version that has it, among those published.
    pub(crate) since: &'static str,
    /// In osquery's order.
    pub(crate) columns: Vec<ShippedColumn>,
}

/// A column of it.
#[derive(Debug)]
pub(crate) struct ShippedColumn {
    /// Its name.
    pub(crate) name: &'static str,
    /// As SQLite calls the type.
    pub(crate) kind: &'static str,
    /// Not part of `*`.
    pub(crate) hidden: bool,
    /// First version that has it.
    pub(crate) since: &'static str,
}

static TABLES: LazyLock<BTreeMap<&'static str, Shipped>> = LazyLock::new(|| {
    include_str!("../data/tables.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(table)
        .collect()
});

fn table(line: &'static str) -> Option<(&'static str, Shipped)> {
    let mut parts = line.split('\t');
    let name = parts.next()?;
    let platforms = Platforms::of_letters(parts.next()?);
    let _evented = parts.next()?;
    let since = parts.next()?;
    let columns = parts
        .next()?
        .split(' ')
        .filter_map(|text| column(text, since));
    let columns = columns.collect();
    Some((
        name,
        Shipped {
            platforms,
            since,
            columns,
        },
    ))
}

fn column(text: &'static str, of_table: &'static str) -> Option<ShippedColumn> {
    let (name, rest) = text.split_once(':')?;
    let (rest, since) = rest.split_once('@').unwrap_or((rest, of_table));
    let kind = match rest.chars().next()? {
        'i' => "INTEGER",
        'b' => "BIGINT",
        'u' => "UNSIGNED BIGINT",
        'd' => "DOUBLE",
        _ => "TEXT",
    };
    Some(ShippedColumn {
        name,
        kind,
        hidden: rest.contains('H'),
        since,
    })
}

pub(crate) fn tables() -> &'static BTreeMap<&'static str, Shipped> {
    &TABLES
}

/// Does osquery ship a table of this name, on any platform? Names are compared without regard to case.
#[must_use]
pub fn is_shipped(name: &str) -> bool {
    TABLES.contains_key(name.to_ascii_lowercase().as_str())
}

/// The names of all tables that osquery ships, with the platforms that have them, in name order.
pub fn shipped_tables() -> impl Iterator<Item = (&'static str, Platforms)> {
    TABLES.iter().map(|(name, table)| (*name, table.platforms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_data_is_a_table_with_columns() {
        let lines = include_str!("../data/tables.tsv").lines();
        let lines = lines.filter(|line| !line.starts_with('#')).count();
        assert_eq!(TABLES.len(), lines);
        assert!(
            TABLES
                .values()
                .all(|table| !table.columns.is_empty() && !table.platforms.is_empty())
        );
        let alf = &TABLES["alf"];
        assert_eq!(alf.platforms, Platforms::DARWIN);
        let processes = &TABLES["processes"];
        let on_disk = processes
            .columns
            .iter()
            .find(|column| column.name == "on_disk");
        assert_eq!(on_disk.unwrap().kind, "INTEGER");
        assert!(is_shipped("Processes") && !is_shipped("process"));
    }
}
