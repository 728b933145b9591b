//! Doorman's rules. Their JSON is ours; what means something else here is named, and the rule comes switched off.

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::RuleId;
use ostiary_domain::rule::{Watch, parse, read_otherwise_by_python};
use ostiary_store::doorman::DoormanRule;
use ostiary_store::rule_edits::{self, RuleRecord, RuleValues};
use ostiary_store::{Conn, destinations};
use serde_json::Value;

use super::doorman_names::{Renamed, Rewritten};
use crate::actions::config_import::{Action, Note, Step};
use crate::error::Result;

/// How late an event may come for a rule that was made in Doorman, where there was no limit.
const MAX_AGE_SECONDS: i32 = 86_400;

/// A rule that is to be made.
#[derive(Debug)]
pub(super) struct NewRule {
    pub(super) id: RuleId,
    pub(super) values: RuleValues,
}

/// What becomes of the rules.
#[derive(Debug, Default)]
pub(super) struct RulePlan {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<Note>,
    pub(super) new: Vec<NewRule>,
}

/// Decides. A rule of a name that exists is left alone.
pub(super) async fn plan(
    conn: &mut Conn,
    rules: &[DoormanRule],
    renamed: &Renamed,
) -> Result<RulePlan> {
    let known = rule_edits::list(conn).await?;
    let mut plan = RulePlan::default();
    let mut taken: Vec<String> = Vec::new();
    for rule in rules {
        let mut name = rule.name.trim().to_owned();
        if taken.contains(&name) {
            name = format!("{name} ({})", rule.id);
        }
        taken.push(name.clone());
        plan.rule(conn, &known, name, (rule, renamed)).await?;
    }
    if !plan.new.is_empty() {
        plan.notes.push(Note {
            kind: "info",
            place: "rules".to_owned(),
            text: format!(
                "They do not look at baselines (a first full set of rows, or one sent again) nor at events that come more than {} hours late; \
                 in Doorman every row counted. Both can be set in each rule.",
                MAX_AGE_SECONDS / 3600
            ),
        });
    }
    Ok(plan)
}

impl RulePlan {
    fn note(&mut self, kind: &'static str, name: &str, text: String) {
        self.notes.push(Note {
            kind,
            place: format!("rule {name}"),
            text,
        });
    }

    fn step(&mut self, action: Action, name: String) {
        self.steps.push(Step {
            action,
            kind: "rule",
            name,
            fields: Vec::new(),
        });
    }

    async fn rule(
        &mut self,
        conn: &mut Conn,
        known: &[RuleRecord],
        name: String,
        (rule, renamed): (&DoormanRule, &Renamed),
    ) -> Result<()> {
        let mut conditions = rule.conditions.clone().unwrap_or(Value::Null);
        if let Err(error) = parse(&conditions) {
            self.note(
                "danger",
                &name,
                format!("It is left out, for it cannot be carried over: {error}."),
            );
            return Ok(());
        }
        if asks_for_time(&conditions) {
            let text = "It is left out: it asks for the field timestamp, on which rules of Doorman fail, so nobody knows what it would find. Here that \
                field is the time of an event in seconds, and the rule can be made anew.";
            self.note("danger", &name, text.to_owned());
            return Ok(());
        }
        if known.iter().any(|known| known.name == name) {
            self.step(Action::Unchanged, name);
            return Ok(());
        }
        let mut done = Rewritten::default();
        renamed.rewrite(&mut conditions, &mut done);
        for (there, here) in done.names {
            self.note("info", &name, format!("It asks for results of {there}, which are those of {here} here; so it does now."));
        }
        for text in done.unclear {
            self.note("warning", &name, format!("It asks for names of results by {text:?}, and some of them are others here; look at it."));
        }
        for said in patterns(&conditions)
            .filter_map(|pattern| read_otherwise_by_python(pattern).ok())
            .flatten()
        {
            self.note(
                "warning",
                &name,
                format!("One of its patterns means something else here: {said}."),
            );
        }
        let mut enabled = true;
        if has_not(&conditions) {
            enabled = false;
            let text = "It comes switched off: a group says \"not\", which Doorman passes over and which inverts the group here.";
            self.note("danger", &name, text.to_owned());
        }
        if rule
            .description
            .as_deref()
            .unwrap_or_default()
            .contains('$')
            || name.contains('$')
        {
            let text = "Its text has placeholders ($…), which are not filled in here; alerts name the node and carry the rows.";
            self.note("info", &name, text.to_owned());
        }
        let mut to = Vec::new();
        for alerter in &rule.alerters {
            match destinations::find_id(conn, alerter).await? {
                Some(id) => to.push(id.0),
                None => {
                    let text = format!(
                        "There is no destination called {alerter}; make it, and choose it in the rule."
                    );
                    self.note("warning", &name, text);
                }
            }
        }
        if rule.alerters.is_empty() {
            enabled = false;
            self.note(
                "info",
                &name,
                "It comes switched off: without an alerter it did nothing in Doorman.".to_owned(),
            );
        }
        self.step(Action::Added, name.clone());
        self.new.push(NewRule {
            id: RuleId(new_id()),
            values: RuleValues {
                name,
                description: rule.description.clone().unwrap_or_default(),
                conditions,
                severity: "medium".to_owned(),
                scope: String::new(),
                entity_columns: Vec::new(),
                on_baseline: false,
                max_age_seconds: MAX_AGE_SECONDS,
                runbook_url: String::new(),
                enabled,
                owner: String::new(),
                watch: Watch::default().as_str().to_owned(),
                watch_count: None,
                watch_seconds: None,
                destinations: to,
            },
        });
        Ok(())
    }
}

/// The patterns in a rule.
fn patterns(node: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    if let Some(rules) = node.get("rules").and_then(Value::as_array) {
        return Box::new(rules.iter().flat_map(patterns));
    }
    let is_pattern = (node.get("operator").and_then(Value::as_str))
        .is_some_and(|operator| operator.ends_with("matches_regex"));
    let value = node.get("value").filter(|_| is_pattern);
    let pattern = value.and_then(|value| value.get(1).unwrap_or(value).as_str());
    Box::new(pattern.into_iter())
}

fn has_not(node: &Value) -> bool {
    node.get("not").and_then(Value::as_bool).unwrap_or(false)
        || (node.get("rules").and_then(Value::as_array))
            .is_some_and(|rules| rules.iter().any(has_not))
}

fn asks_for_time(node: &Value) -> bool {
    node.get("field").and_then(Value::as_str) == Some("timestamp")
        || (node.get("rules").and_then(Value::as_array))
            .is_some_and(|rules| rules.iter().any(asks_for_time))
}
