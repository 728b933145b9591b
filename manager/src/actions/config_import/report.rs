//! What an import would do, or did, in words and numbers.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Added,
    /// It becomes another.
    Changed,
    /// It is deleted.
    Removed,
    /// It is as wanted already.
    Unchanged,
}

/// A field of a thing before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// Before; null for a thing that is made.
    pub old: Value,
    /// After; null for a thing that is deleted.
    pub new: Value,
}

/// One thing of a config.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What happens.
    pub action: Action,
    /// `pack`, `query`, `option`, `decorator`, `file path`, `section`, `tag`, …
    pub kind: &'static str,
    /// Which: a query of a pack as `pack/query`.
    pub name: String,
    /// What of it changes.
    pub fields: Vec<FieldChange>,
}

/// A sentence about the import.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Note {
    /// `info`, `warning` or `danger`.
    pub kind: &'static str,
    /// Where in which file, or which thing.
    pub place: String,
    /// The sentence.
    pub text: String,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What is done to what; unchanged things are counted only.
    pub steps: Vec<Step>,
    /// How many things are as wanted already.
    pub unchanged: usize,
    /// What is odd.
    pub notes: Vec<Note>,
    /// Names exactly this report. It is to be given to apply it.
    pub digest: String,
}

impl Report {
    /// Seals steps and notes with their digest. `scope` is what else decides about the outcome.
    #[must_use]
    pub fn new(steps: Vec<Step>, notes: Vec<Note>, scope: &str) -> Self {
        let (unchanged, steps): (Vec<Step>, Vec<Step>) = steps
            .into_iter()
            .partition(|step| step.action == Action::Unchanged);
        let mut report = Self {
            steps,
            unchanged: unchanged.len(),
            notes,
            digest: String::new(),
        };
        let text = serde_json::to_string(&report).unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(scope);
        hash.update([0]);
        hash.update(text);
        report.digest = hex::encode(&hash.finalize()[..12]);
        report
    }

    /// Is this what was shown?
    ///
    /// # Errors
    /// [`Error::Refused`] when `digest` is that of another report.
    pub(in crate::actions) fn confirmed(&self, digest: &str) -> Result<()> {
        if self.digest == digest {
            return Ok(());
        }
        Err(Error::Refused(
            "Things have moved on since this was shown, so something else would be done now. Nothing was changed; look at it again."
                .to_owned(),
        ))
    }

    /// Is there nothing to be done?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many things have this done to them.
    #[must_use]
    pub fn count(&self, action: Action) -> usize {
        self.steps
            .iter()
            .filter(|step| step.action == action)
            .count()
    }

    /// For people at a terminal.
    #[must_use]
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let sign = match step.action {
                Action::Added => '+',
                Action::Changed => '~',
                Action::Removed => '-',
                Action::Unchanged => ' ',
            };
            text.push_str(&format!("{sign} {} {}\n", step.kind, printable(&step.name)));
            if step.action == Action::Changed {
                for change in &step.fields {
                    let (old, new) = (
                        printable(&change.old.to_string()),
                        printable(&change.new.to_string()),
                    );
                    text.push_str(&format!("    {}: {old} -> {new}\n", change.field));
                }
            }
        }
        for note in &self.notes {
            text.push_str(&format!(
                "! {}: {}\n",
                printable(&note.place),
                printable(&note.text)
            ));
        }
        text.push_str(&format!(
            "{} added, {} changed, {} removed, {} unchanged, {} odd\n",
            self.count(Action::Added),
            self.count(Action::Changed),
            self.count(Action::Removed),
            self.unchanged,
            self.notes.len()
        ));
        text
    }
}

/// Names may hold anything; a terminal shall not obey them.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect()
}

/// The fields that differ. Members of `passed_over` are not looked at.
pub(super) fn differences(
    old: Option<&Value>,
    new: Option<&Value>,
    passed_over: &[&str],
) -> Vec<FieldChange> {
    let empty = Map::new();
    let (old, new) = (
        old.and_then(Value::as_object).unwrap_or(&empty),
        new.and_then(Value::as_object).unwrap_or(&empty),
    );
    let names = new
        .keys()
        .chain(old.keys().filter(|name| !new.contains_key(*name)));
    let value =
        |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or(Value::Null);
    names
        .filter(|name| !passed_over.contains(&name.as_str()))
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            old: value(old, name),
            new: value(new, name),
        })
        .collect()
}
