//! Do present rows still say how things are? They are kept when nobody asks for them any more, or nobody answers.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

/// Posts come some time after an execution.
const GRACE: TimeDelta = TimeDelta::minutes(5);

/// What a config asks for: the seconds between two executions, by the name under which results come. With the delimiter that we always
/// send; the queries of a pack `main` come without a prefix (`osquery/config/config.cpp::scheduledQueries`).
#[must_use]
pub fn asked_in(document: &Value) -> BTreeMap<String, i64> {
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut asked = BTreeMap::new();
    let mut add = |prefix: &str, queries: &Value| {
        for (name, query) in members(queries) {
            let seconds = query["interval"].as_i64().unwrap_or(0);
            asked.insert(format!("{prefix}{name}"), seconds);
        }
    };
    add("", &document["schedule"]);
    for (name, pack) in members(&document["packs"]) {
        let prefix = if name == "main" {
            String::new()
        } else {
            format!("pack/{name}/")
        };
        add(&prefix, &pack["queries"]);
    }
    asked
}

/// Why rows may no longer say how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The query is not in the config that the node has.
    NotAsked,
    /// Nothing has confirmed them for more than twice the interval.
    Old,
}

impl Stale {
    /// In a word, for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Old => "old",
        }
    }
}

/// Before this time nothing confirms the rows of a query that is asked so often.
#[must_use]
pub fn confirmed_since(interval_seconds: i64, now: DateTime<Utc>) -> DateTime<Utc> {
    now - TimeDelta::seconds(2 * interval_seconds.clamp(0, 604_800)) - GRACE
}

/// Judges rows of a query: `interval` is how often it is asked (not at all: `None`), `confirmed` whether something has confirmed them
/// [since](confirmed_since).
#[must_use]
pub fn stale(interval: Option<i64>, confirmed: bool) -> Option<Stale> {
    match interval {
        None => Some(Stale::NotAsked),
        Some(_) if !confirmed => Some(Stale::Old),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_asks_under_the_names_by_which_results_come() {
        let document = json!({
            "schedule": {"users": {"query": "q", "interval": 60}},
            "packs": {
                "it": {"queries": {"usb": {"query": "q", "interval": 3600}}},
                "main": {"queries": {"bare": {"query": "q", "interval": 10}}},
            },
        });
        let asked: Vec<_> = asked_in(&document).into_iter().collect();
        assert_eq!(
            asked,
            [
                ("bare".to_owned(), 10),
                ("pack/it/usb".to_owned(), 3600),
                ("users".to_owned(), 60)
            ]
        );
        assert!(asked_in(&json!({})).is_empty());
    }

    #[test]
    fn rows_are_stale_when_nobody_asks_or_nobody_answers() {
        assert_eq!(stale(None, true), Some(Stale::NotAsked));
        assert_eq!(stale(Some(60), false), Some(Stale::Old));
        assert_eq!(stale(Some(60), true), None);
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(9);
        assert_eq!(confirmed_since(3600, now), now - TimeDelta::minutes(125));
    }
}
