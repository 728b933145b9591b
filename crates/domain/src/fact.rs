//! Facts: what Ostiary itself notes about nodes and about itself, and rules can match as rows of queries that no node has. [`FACTS`]
//! names them all with their columns; forms and the worker read that table. When a fact is noted is decided where it is seen.
//!
//! A rule sees a fact as a row of the query `ostiary/<name>` with the action `triggered`. Some facts end: a rule that waits for rows
//! that hold ([`Watch::Present`](crate::rule::Watch::Present)) resolves its finding then.

use serde_json::{Map, Value};

use crate::finding::Entity;
use crate::osquery::Columns;

/// A kind of fact.
#[derive(Debug, PartialEq, Eq)]
pub struct FactKind {
    /// Its word, without `ostiary/`.
    pub name: &'static str,
    /// When it is noted, in words.
    pub when: &'static str,
    /// When it is over, in words; empty when it is of a moment.
    pub until: &'static str,
    /// All columns of its row.
    pub columns: &'static [&'static str],
    /// The columns that tell one matter from another on a node, for rules that name none.
    pub entity: &'static [&'static str],
    /// What else the query is called: rules of Doorman know some.
    pub aliases: &'static [&'static str],
}

/// A node has enrolled, or people have approved of it.
pub const ENROLLED: FactKind = FactKind {
    name: "enrolled",
    when: "a node enrolls or is approved",
    until: "",
    columns: &[
        "host_identifier",
        "hostname",
        "platform",
        "osquery_version",
        "ip",
        "secret",
        "conflict_with",
        "reestablished",
    ],
    entity: &[],
    aliases: &["doorman/tasks/node_enrolled"],
};

/// A node came back without its database and was known by its hardware.
pub const IDENTITY_REESTABLISHED: FactKind = FactKind {
    name: "identity_reestablished",
    when: "a node that had been silent enrolls anew, known by its hardware or by people",
    until: "",
    columns: ENROLLED.columns,
    entity: &[],
    aliases: &[],
};

/// Two nodes look like one machine.
pub const CONFLICT: FactKind = FactKind {
    name: "conflict",
    when: "a node looks like the machine of another one",
    until: "people have merged them or keep them apart",
    columns: &["conflict_with"],
    entity: &[],
    aliases: &[],
};

/// A node has not checked in for a while.
pub const OFFLINE: FactKind = FactKind {
    name: "offline",
    when: "a node has not checked in for [worker] offline_after_minutes, and again after each number of offline_days",
    until: "it checks in again",
    columns: &[
        "last_seen_at",
        "results_at",
        "enrolled_at",
        "since_last_checkin_seconds",
        "since_last_checkin_days",
        "since_last_result_seconds",
        "since_last_result_days",
        "since_last_checkin_to_last_result_seconds",
        "since_last_checkin_to_last_result_days",
    ],
    entity: &[],
    aliases: &["doorman/tasks/node_offline_checks"],
};

/// A node checks in, but its schedule does not run.
pub const SILENT: FactKind = FactKind {
    name: "silent",
    when: "a node checks in, but has sent no results for [worker] silent_after_minutes",
    until: "results come again",
    columns: OFFLINE.columns,
    entity: &[],
    aliases: &[],
};

/// A node is in trouble since it got a change of configs, which halted the roll-out.
pub const ROLLOUT_HALTED: FactKind = FactKind {
    name: "rollout_halted",
    when: "a node's trouble halts a roll-out",
    until: "",
    columns: &["reason", "rollout_id", "revision", "base_revision", "stage"],
    entity: &[],
    aliases: &[],
};

/// A node does not run the config that it fetched.
pub const CONFIG_NOT_TAKEN_UP: FactKind = FactKind {
    name: "config_not_taken_up",
    when: "a node reports results for [worker] config_after_minutes since it fetched a config, but still runs another one; and when that \
           halts a roll-out",
    until: "it runs what it fetched",
    columns: &[
        "reason",
        "rollout_id",
        "revision",
        "base_revision",
        "stage",
        "fetched_at",
        "config_hash",
    ],
    entity: &[],
    aliases: &[],
};

/// Lines of a node were lost.
pub const LINES_LOST: FactKind = FactKind {
    name: "lines_lost",
    when: "lines of a node are lost because its posts are too large",
    until: "",
    columns: &["lines", "lines_in_all"],
    entity: &[],
    aliases: &[],
};

/// A node's watchdog denylisted a query.
pub const QUERY_DENYLISTED: FactKind = FactKind {
    name: "query_denylisted",
    when: "a node's watchdog denylists a query of its schedule",
    until: "the query is no longer denylisted",
    columns: &["query"],
    entity: &["query"],
    aliases: &[],
};

/// A carve has ended.
pub const CARVE_DONE: FactKind = FactKind {
    name: "carve_done",
    when: "a carve is stored (state stored), given up because blocks are missing (expired), or cannot be joined (failed)",
    until: "",
    columns: &[
        "carve_id", "state", "path", "files", "bytes", "sha256", "problem",
    ],
    entity: &["carve_id"],
    aliases: &[],
};

/// A destination takes nothing.
pub const DESTINATION_FAILING: FactKind = FactKind {
    name: "destination_failing",
    when: "a destination has failed so often in a row that it is paused",
    until: "it works again, or is deleted",
    columns: &["destination", "kind", "failing_since", "failures", "answer"],
    entity: &["destination"],
    aliases: &[],
};

/// A sink takes nothing.
pub const SINK_FAILING: FactKind = FactKind {
    name: "sink_failing",
    when: "a sink has failed five times in a row",
    until: "it works again, is disabled or deleted",
    columns: &["sink", "kind", "failed_at", "failures", "answer"],
    entity: &["sink"],
    aliases: &[],
};

/// A certificate comes to its end.
pub const CERTIFICATE_EXPIRING: FactKind = FactKind {
    name: "certificate_expiring",
    when: "a certificate that is served, or a root that nodes get, has less than one of [worker] certificate_days left; once for each",
    until: "no such certificate is served any more",
    columns: &["role", "subject", "not_after", "days_left", "fingerprint"],
    entity: &["role", "subject"],
    aliases: &[],
};

/// Somebody did something in Ostiary.
pub const AUDIT: FactKind = FactKind {
    name: "audit",
    when: "an entry is written to the audit log",
    until: "",
    columns: &[
        "action",
        "user_name",
        "subject_kind",
        "subject_id",
        "subject_name",
        "changed",
        "ip",
    ],
    entity: &["action", "subject_kind", "subject_id"],
    aliases: &[],
};

/// All facts.
pub const FACTS: [&FactKind; 14] = [
    &ENROLLED,
    &IDENTITY_REESTABLISHED,
    &CONFLICT,
    &OFFLINE,
    &SILENT,
    &CONFIG_NOT_TAKEN_UP,
    &ROLLOUT_HALTED,
    &LINES_LOST,
    &QUERY_DENYLISTED,
    &CARVE_DONE,
    &DESTINATION_FAILING,
    &SINK_FAILING,
    &CERTIFICATE_EXPIRING,
    &AUDIT,
];

/// What comes before the name in the query of a fact.
pub const PREFIX: &str = "ostiary/";

impl FactKind {
    /// The kind whose query is called so.
    #[must_use]
    pub fn find(query_name: &str) -> Option<&'static Self> {
        FACTS.into_iter().find(|kind| {
            query_name.strip_prefix(PREFIX) == Some(kind.name) || kind.aliases.contains(&query_name)
        })
    }

    /// The name of its query.
    #[must_use]
    pub fn query_name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// That it is so, as the worker is told: `{"name": …, "columns": {…}}`. `columns` is an object of the kind's columns; those that
    /// do not apply may be missing.
    #[must_use]
    pub fn noted(&self, columns: Value) -> Value {
        Value::Object(self.told(columns))
    }

    /// That it is so no longer, and why. `columns` must hold those of the entity.
    #[must_use]
    pub fn ended(&self, reason: &str, columns: Value) -> Value {
        let mut told = self.told(columns);
        told.insert("ended".to_owned(), reason.into());
        Value::Object(told)
    }

    fn told(&self, columns: Value) -> Map<String, Value> {
        debug_assert!(self.knows(&columns), "{}: {columns}", self.name);
        let mut told = Map::new();
        told.insert("name".to_owned(), self.name.into());
        told.insert("columns".to_owned(), columns);
        told
    }

    fn knows(&self, columns: &Value) -> bool {
        columns
            .as_object()
            .is_some_and(|row| row.keys().all(|name| self.columns.contains(&name.as_str())))
    }
}

/// What a fact is about, for a rule with these entity columns: those of them that the fact has, else what its kind goes by. Its other
/// columns are times and numbers, which differ each time.
#[must_use]
pub fn entity_of(query_name: &str, entity_columns: &[String], row: &Columns<'_>) -> Entity {
    if entity_columns.iter().any(|name| row.get(name).is_some()) {
        return Entity::of(entity_columns, row);
    }
    let own = FactKind::find(query_name).map_or(&[][..], |kind| kind.entity);
    let named = own
        .iter()
        .map(|name| (*name, row.get(name).unwrap_or_default()));
    Entity::of(
        &[],
        &Columns::new([("fact", query_name)].into_iter().chain(named)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_found_by_its_names_and_goes_by_columns_that_it_has() {
        for kind in FACTS {
            assert_eq!(
                FactKind::find(&format!("{PREFIX}{}", kind.name)),
                Some(kind)
            );
            for alias in kind.aliases {
                assert_eq!(FactKind::find(alias), Some(kind));
            }
            assert!(
                kind.entity.iter().all(|name| kind.columns.contains(name)),
                "{kind:?}"
            );
        }
        assert_eq!(FactKind::find("offline"), None);
        assert_eq!(FactKind::find("ostiary/uptime"), None);
    }

    #[test]
    fn a_fact_is_about_its_node_or_what_its_kind_goes_by_or_what_the_rule_names() {
        let row = |query: &'static str, at: &'static str| {
            Columns::new([("query", query), ("last_seen_at", at)])
        };
        let offline = |row, columns: &[String]| entity_of("ostiary/offline", columns, row);
        let (one, later) = (row("a", "1"), row("b", "2"));
        assert_eq!(offline(&one, &[]), offline(&later, &[]));
        assert_eq!(offline(&one, &[]).text, "fact: ostiary/offline");
        assert_eq!(
            offline(&one, &["unknown".to_owned()]),
            offline(&later, &["unknown".to_owned()])
        );
        assert_ne!(
            offline(&one, &["query".to_owned()]),
            offline(&later, &["query".to_owned()])
        );
        let denylisted = |row| entity_of("ostiary/query_denylisted", &[], row);
        assert_ne!(denylisted(&one), denylisted(&later));
        assert_eq!(denylisted(&one), denylisted(&row("a", "2")));
    }
}
