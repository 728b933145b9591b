//! Facts as the worker reads and notes them. Which there are, with their columns, stands in [`ostiary_domain::fact`].
//!
//! `quiet` notes what follows from what is missing, `standing` what follows from what is stored; both are turns of the sweep. Other facts
//! are noted where they happen, in the transaction that makes them true.

mod quiet;
mod standing;

use ostiary_domain::fact::{self, FactKind};
use ostiary_domain::osquery::Columns;
use serde_json::Value;

pub(crate) use quiet::note_quiet;
pub(crate) use standing::{note_ended, note_standing, note_untaken_configs};

/// A fact, as rules see it.
#[derive(Debug)]
pub(crate) struct Fact {
    /// `ostiary/<name>`, then what else it is called.
    pub(crate) query_names: Vec<String>,
    pub(crate) columns: Columns<'static>,
    /// It is over; why.
    pub(crate) ended: Option<String>,
}

impl Fact {
    /// A fact of this moment.
    pub(crate) fn of(kind: &FactKind, columns: Columns<'static>) -> Self {
        Self {
            query_names: names(kind.name),
            columns,
            ended: None,
        }
    }

    /// Reads a pending fact, `{"name": …, "columns": {…}}`, with `"ended": why` when it is over.
    pub(crate) fn read(fact: &Value) -> Option<Self> {
        let name = fact.get("name")?.as_str()?;
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
        let ended = fact.get("ended").and_then(Value::as_str);
        Some(Self {
            query_names: names(name),
            columns,
            ended: ended.map(ToOwned::to_owned),
        })
    }

    /// What else is so when this is: who enrolls may have been known by its hardware.
    pub(crate) fn also(&self) -> Option<Self> {
        let enrolled = self.query_names[0].strip_prefix(fact::PREFIX) == Some(fact::ENROLLED.name);
        (enrolled && self.columns.get("reestablished") == Some("1"))
            .then(|| Self::of(&fact::IDENTITY_REESTABLISHED, self.columns.clone()))
    }
}

fn names(name: &str) -> Vec<String> {
    let own = format!("{}{name}", fact::PREFIX);
    let aliases = FactKind::find(&own).map_or(&[][..], |kind| kind.aliases);
    [own]
        .into_iter()
        .chain(aliases.iter().map(ToString::to_string))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert!(fact.ended.is_none() && fact.also().is_none());
        assert!(Fact::read(&json!({"columns": {}})).is_none());
        let over = Fact::read(&json!({"name": "silent", "ended": "results come again"})).unwrap();
        assert_eq!(over.query_names, ["ostiary/silent"]);
        assert_eq!(over.ended.as_deref(), Some("results come again"));
    }

    #[test]
    fn who_was_known_by_its_hardware_has_enrolled_and_its_identity_is_reestablished() {
        let columns = json!({"hostname": "web-1", "reestablished": "1"});
        let fact = Fact::read(&json!({"name": "enrolled", "columns": columns})).unwrap();
        let also = fact.also().unwrap();
        assert_eq!(also.query_names, ["ostiary/identity_reestablished"]);
        assert_eq!(also.columns.get("hostname"), Some("web-1"));
        assert!(also.also().is_none());
    }
}
