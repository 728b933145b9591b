//! What our schedule says about the queries that nodes report on: are their rows to be kept as present rows?

use std::collections::HashMap;

use ostiary_domain::node_config::{PACK_DELIMITER, Parts, Query};
use ostiary_domain::present::Keeping;

/// The built-in pack: what its queries are called on the wire begins with this.
pub(crate) const BUILT_IN: &str = "pack/ostiary/";

/// How the rows of each scheduled query are kept, by the name on the wire.
#[derive(Debug, Default)]
pub(crate) struct Schedule(HashMap<String, Keeping>);

impl Schedule {
    /// Of enabled parts.
    pub(crate) fn new(parts: &Parts) -> Self {
        let mut by_name: HashMap<String, Keeping> = HashMap::new();
        for query in &parts.queries {
            by_name.insert(query.name.clone(), keeping_of(query));
        }
        for pack in &parts.packs {
            for query in &pack.queries {
                let name = ["pack", &pack.name, &query.name].join(PACK_DELIMITER);
                by_name.insert(name, keeping_of(query));
            }
        }
        Self(by_name)
    }

    /// How the rows of a query are kept. A query that is not ours, or not any more, is judged by its name.
    pub(crate) fn keeping(&self, query_name: &str) -> Keeping {
        match self.0.get(query_name) {
            Some(keeping) => *keeping,
            None if is_evented_table(query_name) => Keeping::Evented,
            None => Keeping::Kept,
        }
    }
}

fn keeping_of(query: &Query) -> Keeping {
    if reads_events(&query.sql) {
        Keeping::Evented
    } else if !query.removed && !query.snapshot {
        Keeping::RemovedOff
    } else {
        Keeping::Kept
    }
}

/// osquery's evented tables all end in `_events`; `osquery_events` lists the publishers of events and is an ordinary table.
fn is_evented_table(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("_events") && name != "osquery_events"
}

/// Does a statement name an evented table outside of its texts and comments?
fn reads_events(sql: &str) -> bool {
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("--") {
            rest = after.split_once('\n').map_or("", |(_, next)| next);
        } else if let Some(after) = rest.strip_prefix("/*") {
            rest = after.split_once("*/").map_or("", |(_, next)| next);
        } else if let Some(after) = rest.strip_prefix('\'') {
            rest = after.split_once('\'').map_or("", |(_, next)| next);
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if is_evented_table(&rest[..end]) {
                return true;
            }
            rest = &rest[end..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_that_read_evented_tables_do() {
        for evented in [
            "SELECT * FROM process_events",
            "select path from file_events f join hash using (path)",
            "SELECT * FROM (SELECT * FROM \"socket_events\")",
            "-- the opening\nSELECT 1 FROM USER_EVENTS;",
        ] {
            assert!(reads_events(evented), "{evented}");
        }
        for plain in [
            "SELECT * FROM processes",
            "SELECT * FROM osquery_events",
            "SELECT 'process_events' AS t FROM time",
            "SELECT 1 /* file_events */ FROM time -- file_events",
            "SELECT events FROM t",
            "'",
            "é'",
        ] {
            assert!(!reads_events(plain), "{plain}");
        }
    }

    #[test]
    fn a_query_that_is_not_ours_is_judged_by_its_name() {
        let schedule = Schedule::default();
        assert_eq!(schedule.keeping("pack/fim/file_events"), Keeping::Evented);
        assert_eq!(schedule.keeping("pack/it/users"), Keeping::Kept);
    }
}
