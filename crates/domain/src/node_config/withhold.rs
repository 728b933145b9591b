//! What nodes are not given although it stands in their config: SQL that reads tables which they are never asked.
//!
//! Nothing is left out twice here nor judged per node: targets are narrowed, so that selections and documents stay what they are.

use std::collections::{BTreeMap, BTreeSet};

use super::{Pack, Parts, Query};
use crate::table_denial::{AUTO_TABLES, TableDenial};
use crate::target::TargetText;

/// Which tables SQL reads, by its text.
pub type TablesOfSql = BTreeMap<String, Vec<String>>;

impl Parts {
    /// The same parts, less what nodes may not be asked. SQL whose tables are unknown is left as it is: it was saved before there
    /// was a check, and saving a denial looks at all of it again.
    #[must_use]
    pub fn withhold(mut self, denials: &[TableDenial], tables: &TablesOfSql) -> Self {
        for denial in denials {
            let is_denied = |sql: &str| {
                let read = tables.get(sql);
                read.is_some_and(|read| denial.denies_any(read.iter()))
            };
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
            for section in self
                .sections
                .iter_mut()
                .filter(|section| section.key == AUTO_TABLES)
            {
                if denial.tables.iter().any(|table| table == AUTO_TABLES) {
                    section.target = without(&section.target, &denial.target);
                }
            }
            self.packs = self
                .packs
                .into_iter()
                .flat_map(|pack| split(pack, denial, &is_denied))
                .collect();
        }
        self
    }

    /// All SQL of the parts, each text once: queries, discoveries, decorators, queries of file paths.
    #[must_use]
    pub fn sql(&self) -> Vec<String> {
        let packed = self.packs.iter().flat_map(|pack| {
            let queries = pack.queries.iter().map(|query| &query.sql);
            queries.chain(&pack.discovery)
        });
        let all = packed
            .chain(self.queries.iter().map(|query| &query.sql))
            .chain(self.decorators.iter().map(|decorator| &decorator.sql))
            .chain(self.file_paths.iter().flat_map(|path| &path.queries));
        let distinct: BTreeSet<&String> = all.collect();
        distinct.into_iter().cloned().collect()
    }
}

/// A pack with SQL that some of its nodes may not be asked becomes two: one for them, one for the others.
fn split(pack: Pack, denial: &TableDenial, is_denied: &impl Fn(&str) -> bool) -> Vec<Pack> {
    let is_kept = |query: &Query| !is_denied(&query.sql);
    let whole =
        pack.queries.iter().all(is_kept) && !pack.discovery.iter().any(|sql| is_denied(sql));
    let auto_tables = pack.extra.contains_key(AUTO_TABLES)
        && denial.tables.iter().any(|table| table == AUTO_TABLES);
    if whole && !auto_tables {
        return vec![pack];
    }
    let mut narrowed = pack.clone();
    narrowed.target = both(&pack.target, &denial.target);
    narrowed.queries.retain(is_kept);
    if auto_tables {
        narrowed.extra.shift_remove(AUTO_TABLES);
    }
    // A discovery that may not run decides nothing: without it the pack would run where it shall not.
    if pack.discovery.iter().any(|sql| is_denied(sql)) {
        narrowed.queries.clear();
        narrowed.discovery.clear();
    }
    let mut others = pack;
    others.target = without(&others.target, &denial.target);
    vec![others, narrowed]
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

    #[test]
    fn a_denied_node_gets_neither_the_query_nor_that_of_the_pack_and_others_get_all() {
        let denial = TableDenial {
            target: "laptop or lab".to_owned(),
            tables: vec!["file".to_owned()],
            reason: "private.".to_owned(),
        };
        let tables = BTreeMap::from([("SELECT * FROM file".to_owned(), vec!["file".to_owned()])]);
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
