//! Facts: what Ostiary itself notes about a node and rules can match, as rows of queries that no node has.
//!
//! | query name | action | columns |
//! |---|---|---|
//! | `ostiary/enrolled` | `triggered` | what the api notes at an enrollment |
//! | `ostiary/offline` | `triggered` | `last_seen_at`, `results_at`, `enrolled_at`; `since_last_checkin`, `since_last_result` and `since_last_checkin_to_last_result`, each with `_seconds` and with `_days` |
//! | `ostiary/silent` | `triggered` | the same |
//! | `ostiary/certificate_expiring` | `triggered` | `role`, `subject`, `not_after`, `days_left`, `fingerprint`; about Ostiary itself, not about a node |
//! | `ostiary/rollout_halted` | `triggered` | `reason`, `rollout_id`, `revision`, `base_revision`, `stage`: on each node whose trouble halted a roll-out |
//! | `ostiary/config_not_taken_up` | `triggered` | the same: on each node that did not take the change up in time |
//!
//! Rules of doorman know the first two as `doorman/tasks/node_enrolled` and `doorman/tasks/node_offline_checks`.

use chrono::{DateTime, Utc};
use ostiary_domain::osquery::Columns;
use ostiary_store::facts::Quiet;
use ostiary_store::rollouts::Rollout;
use serde_json::{Map, Value, json};

/// A node has not checked in for a while.
pub(crate) const OFFLINE: &str = "offline";
/// A node checks in, but its schedule does not run.
pub(crate) const SILENT: &str = "silent";
/// A node is in trouble since it got a change of configs, which halted the roll-out.
pub(crate) const ROLLOUT_HALTED: &str = "rollout_halted";
/// A node did not take up a change of configs in time, which halted the roll-out.
pub(crate) const CONFIG_NOT_TAKEN_UP: &str = "config_not_taken_up";

/// A fact, as rules see it.
#[derive(Debug)]
pub(crate) struct Fact {
    /// `ostiary/<name>`, then what else it is called.
    pub(crate) query_names: Vec<String>,
    pub(crate) columns: Columns<'static>,
}

impl Fact {
    /// Reads a pending fact, `{"name": …, "columns": {…}}`.
    pub(crate) fn read(fact: &Value) -> Option<Self> {
        let name = fact.get("name")?.as_str()?;
        let mut query_names = vec![format!("ostiary/{name}")];
        match name {
            "enrolled" => query_names.push("doorman/tasks/node_enrolled".into()),
            OFFLINE => query_names.push("doorman/tasks/node_offline_checks".into()),
            _ => {}
        }
        let columns = fact
            .get("columns")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let columns = Columns::new(columns.map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (name.clone(), text)
        }));
        Some(Self {
            query_names,
            columns,
        })
    }
}

/// The fact that a node is quiet.
pub(crate) fn quiet(name: &str, node: &Quiet, now: DateTime<Utc>) -> Value {
    let results_at = node.results_at.unwrap_or(node.enrolled_at);
    let mut columns = Map::new();
    columns.insert("last_seen_at".into(), node.last_seen_at.to_rfc3339().into());
    columns.insert(
        "results_at".into(),
        node.results_at.map(|at| at.to_rfc3339()).into(),
    );
    columns.insert("enrolled_at".into(), node.enrolled_at.to_rfc3339().into());
    for (span, length) in [
        ("since_last_checkin", now - node.last_seen_at),
        ("since_last_result", now - results_at),
        (
            "since_last_checkin_to_last_result",
            node.last_seen_at - results_at,
        ),
    ] {
        columns.insert(format!("{span}_seconds"), length.num_seconds().into());
        columns.insert(format!("{span}_days"), length.num_days().into());
    }
    json!({"name": name, "columns": columns})
}

/// The fact that a node halted a roll-out.
pub(crate) fn rollout_fact(name: &str, rollout: &Rollout, reason: &str) -> Value {
    json!({"name": name, "columns": {
        "reason": reason, "rollout_id": rollout.id, "revision": rollout.revision, "base_revision": rollout.base_revision,
        "stage": rollout.stage + 1,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_has_the_names_that_rules_know_it_by() {
        let fact = Fact::read(
            &json!({"name": "enrolled", "columns": {"n": 3, "none": null, "secret": "laptops"}}),
        )
        .unwrap();
        assert_eq!(
            fact.query_names,
            ["ostiary/enrolled", "doorman/tasks/node_enrolled"]
        );
        assert_eq!(
            fact.columns.to_json(),
            r#"{"n":"3","none":"","secret":"laptops"}"#
        );
        assert!(Fact::read(&json!({"columns": {}})).is_none());
        assert_eq!(
            Fact::read(&json!({"name": "silent"})).unwrap().query_names,
            ["ostiary/silent"]
        );
    }
}
