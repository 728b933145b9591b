//! What nodes are not given although it stands in their config: SQL that reads tables which they are never asked.
//!
//! Nothing is left out twice here nor judged per node: targets are narrowed, so that selections and documents stay what they are.
//!
//! **Invariant:** SQL of which nobody knows what it reads is kept from the nodes of every denial.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::section::{self, StatementKind};
use super::{Pack, Parts, Query, Section};
use crate::table_denial::{AUTO_TABLES, TableDenial};
use crate::target::TargetText;

/// Which tables SQL reads, by its text. What is missing here was never looked at, or it cannot be found out.
pub type TablesOfSql = BTreeMap<String, Vec<String>>;

/// Why a denial keeps SQL from its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It reads these denied tables.
    Reads(Vec<String>),
    /// Nobody knows what it reads.
    Unknown,
}

/// SQL of a config, with what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlPlace<'a> {
    /// `pack/query`, `the view listening`.
    pub name: String,
    /// Its text.
    pub sql: String,
    /// Which nodes get it.
    pub target: &'a TargetText,
    /// Is it sent at all?
    pub enabled: bool,
    /// Is it that of an automatic table, which reads a file of the node and no table of osquery's?
    pub is_auto_table: bool,
}

impl SqlPlace<'_> {
    /// Does a denial keep it from its nodes, and why?
    #[must_use]
    pub fn kept_by(&self, denial: &TableDenial, tables: &TablesOfSql) -> Option<Kept> {
        kept(denial, tables, self.is_auto_table, &self.sql)
    }
}

fn kept(denial: &TableDenial, tables: &TablesOfSql, auto_table: bool, sql: &str) -> Option<Kept> {
    let is_denied = |table: &&String| denial.tables.contains(table);
    if auto_table {
        let all = AUTO_TABLES.to_owned();
        return is_denied(&&all).then(|| Kept::Reads(vec![all]));
    }
    match tables.get(sql) {
        None => Some(Kept::Unknown),
        Some(read) => {
            let denied: Vec<String> = read.iter().filter(is_denied).cloned().collect();
            (!denied.is_empty()).then_some(Kept::Reads(denied))
        }
    }
}

impl Parts {
    /// The same parts, less what nodes may not be asked.
    #[must_use]
    pub fn withhold(mut self, denials: &[TableDenial], tables: &TablesOfSql) -> Self {
        for denial in denials {
            let is_denied = |sql: &str| kept(denial, tables, false, sql).is_some();
            for query in self
                .queries
                .iter_mut()
                .filter(|query| is_denied(&query.sql))
            {
                query.target = without(&query.target, &denial.target);
            }
            for decorator in self
                .decorators
                .iter_mut()
                .filter(|each| is_denied(&each.sql))
            {
                decorator.target = without(&decorator.target, &denial.target);
            }
            for path in &mut self.file_paths {
                if path.queries.iter().any(|sql| is_denied(sql)) {
                    path.target = without(&path.target, &denial.target);
                }
            }
            let left = |key: &str, value: &Value| {
                let mut left = value.clone();
                section::retain_statements(key, &mut left, &|kind, sql| {
                    kept(denial, tables, kind == StatementKind::AutoTable, sql).is_none()
                });
                left
            };
            self.sections = (self.sections.into_iter())
                .flat_map(|section| split_section(section, denial, &left))
                .collect();
            self.packs = (self.packs.into_iter())
                .flat_map(|pack| split_pack(pack, denial, &is_denied, &left))
                .collect();
        }
        self
    }

    /// All SQL of the parts, disabled ones included, with what people call it.
    #[must_use]
    pub fn sql_places(&self) -> Vec<SqlPlace<'_>> {
        let mut places = Vec::new();
        for pack in &self.packs {
            let mut add = |name: String, sql: &str, enabled: bool, is_auto_table: bool| {
                places.push(SqlPlace {
                    name,
                    sql: sql.to_owned(),
                    target: &pack.target,
                    enabled: pack.enabled && enabled,
                    is_auto_table,
                });
            };
            for query in &pack.queries {
                let name = format!("{}/{}", pack.name, query.name);
                add(name, &query.sql, query.enabled, false);
            }
            for sql in &pack.discovery {
                let name = format!("the discovery of {}", pack.name);
                add(name, sql, true, false);
            }
            for (key, value) in &pack.extra {
                for found in section::statements(key, value) {
                    let name = format!("{} of the pack {}", found.name(), pack.name);
                    let auto_table = found.kind == StatementKind::AutoTable;
                    add(name, &found.sql, true, auto_table);
                }
            }
        }
        self.sql_outside_of_packs(&mut places);
        places
    }

    fn sql_outside_of_packs<'a>(&'a self, places: &mut Vec<SqlPlace<'a>>) {
        let place = |name: String, sql: &str, target: &'a TargetText, enabled: bool| SqlPlace {
            name,
            sql: sql.to_owned(),
            target,
            enabled,
            is_auto_table: false,
        };
        places.extend(
            self.queries
                .iter()
                .map(|own| place(own.name.clone(), &own.sql, &own.target, own.enabled)),
        );
        for own in &self.decorators {
            let name = format!("the decorator {}", own.name);
            places.push(place(name, &own.sql, &own.target, own.enabled));
        }
        for own in &self.file_paths {
            let name = format!("the file path {}", own.category);
            let all = own.queries.iter();
            places.extend(all.map(|sql| place(name.clone(), sql, &own.target, own.enabled)));
        }
        for own in &self.sections {
            for found in section::statements(&own.key, &own.value) {
                places.push(SqlPlace {
                    is_auto_table: found.kind == StatementKind::AutoTable,
                    ..place(found.name(), &found.sql, &own.target, own.enabled)
                });
            }
        }
    }

    /// What of the parts makes tables or views that SQL can read: what SQL reads may change with it.
    #[must_use]
    pub fn tables_made(&self) -> Vec<(&str, &Value)> {
        let of_sections = self.sections.iter().filter(|section| section.enabled);
        let of_sections = of_sections.map(|section| (section.key.as_str(), &section.value));
        let of_packs = self.packs.iter().flat_map(|pack| &pack.extra);
        of_sections
            .chain(of_packs.map(|(key, value)| (key.as_str(), value)))
            .filter(|(key, _)| matches!(*key, "views" | AUTO_TABLES))
            .collect()
    }

    /// All SQL of the parts that runs over osquery's tables, each text once.
    #[must_use]
    pub fn sql(&self) -> Vec<String> {
        let places = self.sql_places().into_iter();
        let texts: BTreeSet<String> = places
            .filter(|place| !place.is_auto_table)
            .map(|place| place.sql)
            .collect();
        texts.into_iter().collect()
    }
}

/// A section with SQL that some of its nodes may not be asked becomes two: one for them, one for the others.
fn split_section(
    section: Section,
    denial: &TableDenial,
    left: &impl Fn(&str, &Value) -> Value,
) -> Vec<Section> {
    let value = left(&section.key, &section.value);
    if value == section.value {
        return vec![section];
    }
    let narrowed = Section {
        target: both(&section.target, &denial.target),
        value,
        ..section.clone()
    };
    let others = Section {
        target: without(&section.target, &denial.target),
        ..section
    };
    let is_empty = narrowed.value.as_object().is_none_or(Map::is_empty);
    [Some(others), Some(narrowed).filter(|_| !is_empty)]
        .into_iter()
        .flatten()
        .collect()
}

/// The same of a pack.
fn split_pack(
    pack: Pack,
    denial: &TableDenial,
    is_denied: &impl Fn(&str) -> bool,
    left: &impl Fn(&str, &Value) -> Value,
) -> Vec<Pack> {
    let others = |pack: Pack| Pack {
        target: without(&pack.target, &denial.target),
        ..pack
    };
    // A discovery that may not run decides nothing: without it the pack would run where it shall not.
    if pack.discovery.iter().any(|sql| is_denied(sql)) {
        return vec![others(pack)];
    }
    let is_kept = |query: &Query| !is_denied(&query.sql);
    let extra: Map<String, Value> = (pack.extra.iter())
        .map(|(key, value)| (key.clone(), left(key, value)))
        .collect();
    if pack.queries.iter().all(is_kept) && extra == pack.extra {
        return vec![pack];
    }
    let mut narrowed = pack.clone();
    narrowed.target = both(&pack.target, &denial.target);
    narrowed.queries.retain(is_kept);
    narrowed.extra = (extra.into_iter())
        .filter(|(key, value)| {
            pack.extra.get(key) == Some(value)
                || value.as_object().is_none_or(|left| !left.is_empty())
        })
        .collect();
    vec![others(pack), narrowed]
}

fn without(target: &TargetText, denied: &str) -> TargetText {
    parse(&format!(
        "({}) and not ({})",
        said(target.as_str()),
        said(denied)
    ))
}

fn both(target: &TargetText, denied: &str) -> TargetText {
    parse(&format!(
        "({}) and ({})",
        said(target.as_str()),
        said(denied)
    ))
}

fn said(target: &str) -> &str {
    if target.trim().is_empty() {
        "*"
    } else {
        target
    }
}

/// Two expressions that can be read joined by a word and brackets; should it be nested too deeply, nobody gets the thing.
fn parse(text: &str) -> TargetText {
    TargetText::parse(text)
        .unwrap_or_else(|_| TargetText::parse("none").expect("a word of the language"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node::NodeFacts;

    fn parts() -> Parts {
        serde_json::from_value(json!({
            "packs": [{
                "id": "01930000-0000-7000-8000-000000000001", "name": "p", "description": "", "target": "", "enabled": true,
                "built_in": false, "platform": "", "version": "", "shard": null, "discovery": [], "extra": {},
                "queries": [query("secret", "SELECT * FROM file"), query("open", "SELECT 1")],
            }],
            "queries": [query("secret", "SELECT * FROM file"), query("open", "SELECT 1")],
        }))
        .unwrap()
    }

    fn query(name: &str, sql: &str) -> serde_json::Value {
        json!({"id": "01930000-0000-7000-8000-000000000002", "name": name, "description": "", "value": "", "sql": sql,
            "enabled": true, "interval_seconds": 60, "snapshot": false, "removed": true, "denylist": true,
            "startup_priority": null, "platform": "", "version": "", "shard": null, "target": "", "extra": {}})
    }

    fn tables() -> TablesOfSql {
        let read = |sql: &str, tables: &[&str]| {
            let tables = tables.iter().map(|table| (*table).to_owned()).collect();
            (sql.to_owned(), tables)
        };
        BTreeMap::from([read("SELECT * FROM file", &["file"]), read("SELECT 1", &[])])
    }

    fn laptops(tables: &[&str]) -> TableDenial {
        TableDenial {
            target: "laptop".to_owned(),
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
            reason: "private.".to_owned(),
        }
    }

    fn node(tags: &[&str]) -> NodeFacts {
        NodeFacts {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn sql_of_which_nobody_knows_what_it_reads_is_kept_from_the_nodes_of_every_denial() {
        let unknown = TablesOfSql::new();
        let narrowed = parts().withhold(&[laptops(&["curl"])], &unknown).sorted();
        let config = json!(narrowed.assemble(&node(&["laptop"])));
        assert!(config["schedule"].get("open").is_none(), "{config}");
        assert!(config["packs"]["p"]["queries"].get("open").is_none());
        let whole = json!(parts().sorted().assemble(&node(&[])));
        assert_eq!(json!(narrowed.assemble(&node(&[]))), whole);
        let places = parts();
        let kept = places.sql_places()[0].kept_by(&laptops(&["curl"]), &unknown);
        assert_eq!(kept, Some(Kept::Unknown));
    }

    #[test]
    fn views_and_what_packs_bring_along_are_kept_back_entry_by_entry() {
        let mut parts = parts();
        let extra = json!({
            "decorators": {"load": ["SELECT * FROM file", "SELECT 1"], "interval": {"60": ["SELECT * FROM file"]}},
            "file_paths_query": {"secret": ["SELECT * FROM file"]},
            "file_paths": {"etc": ["/etc/%"]},
            "auto_table_construction": {"t": {"query": "SELECT a FROM b", "path": "/x", "columns": ["a"]}},
        });
        parts.packs[0].extra = extra.as_object().unwrap().clone();
        parts.sections = serde_json::from_value(json!([{
            "id": "01930000-0000-7000-8000-000000000003", "target": "", "key": "views", "name": "v", "description": "",
            "value": {"files": "SELECT * FROM file", "one": "SELECT 1"}, "priority": 0, "enabled": true,
        }]))
        .unwrap();
        let names: Vec<String> = (parts.sql_places().into_iter())
            .map(|place| place.name)
            .collect();
        for name in [
            "the view files",
            "the automatic table t of the pack p",
            "the decorator load of the pack p",
            "the file path secret of the pack p",
        ] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        let denial = laptops(&["file", AUTO_TABLES]);
        let narrowed = parts.clone().withhold(&[denial], &tables()).sorted();
        let config = json!(narrowed.assemble(&node(&["laptop"])));
        assert_eq!(config["views"], json!({"one": "SELECT 1"}));
        assert_eq!(parts.tables_made().len(), 2);
        let text = config.to_string();
        assert!(
            !text.contains("FROM file") && !text.contains("FROM b"),
            "{text}"
        );
        assert!(text.contains("/etc/%"), "{text}");
        let whole = json!(parts.sorted().assemble(&node(&[])));
        assert_eq!(json!(narrowed.assemble(&node(&[]))), whole);
    }

    #[test]
    fn a_pack_whose_discovery_is_denied_is_not_sent() {
        let mut parts = parts();
        parts.packs[0].discovery = vec!["SELECT * FROM file".to_owned()];
        let narrowed = parts.withhold(&[laptops(&["file"])], &tables()).sorted();
        let config = json!(narrowed.assemble(&node(&["laptop"])));
        assert!(config["packs"].get("p").is_none(), "{config}");
    }

    #[test]
    fn a_denied_node_gets_neither_the_query_nor_that_of_the_pack_and_others_get_all() {
        let denial = TableDenial {
            target: "laptop or lab".to_owned(),
            tables: vec!["file".to_owned()],
            reason: "private.".to_owned(),
        };
        let tables = tables();
        assert_eq!(parts().sql(), ["SELECT * FROM file", "SELECT 1"]);
        let narrowed = parts().withhold(&[denial], &tables).sorted();
        let of = |tags: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let node = NodeFacts {
                tags,
                ..NodeFacts::default()
            };
            json!(narrowed.assemble(&node))
        };
        for tags in [&["laptop"][..], &["server", "lab"]] {
            let config = of(tags);
            assert!(
                config["schedule"].get("secret").is_none()
                    && config["schedule"].get("open").is_some()
            );
            assert!(config["packs"]["p"]["queries"].get("secret").is_none());
            assert!(config["packs"]["p"]["queries"].get("open").is_some());
        }
        assert_eq!(
            of(&["server"]),
            json!(parts().sorted().assemble(&NodeFacts::default()))
        );
    }
}
