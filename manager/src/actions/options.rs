//! osquery's options for nodes.

use ostiary_domain::ids::OptionId;
use ostiary_domain::node_config::flags::{self, FLAGS, Flag, Settable};
use ostiary_store::options::{self, OptionRecord, OptionValues};
use serde::Serialize;
use serde_json::{Value, json};

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::validate::{Check, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a value of this option for this target.";

/// Options that a form offers: flags that a config may set, and those that it once could.
pub fn offered() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.name != "pack_delimiter")
}

/// What to know about an option before relying on it, as a sentence.
#[must_use]
pub fn note(name: &str) -> Option<String> {
    let Some(flag) = flags::find(name) else {
        return Some(if name.starts_with("custom_") {
            "osquery takes names that begin with custom_ without knowing them.".to_owned()
        } else {
            "Ostiary does not know this flag: osqueryd ignores, with a warning, what it does not know either."
                .to_owned()
        });
    };
    match flag.settable {
        Settable::ByOptions => None,
        Settable::AtStart => Some(
            "osqueryd reads this only when it starts: it counts from the next restart on, if the first config then brings it."
                .to_owned(),
        ),
        Settable::CommandLine => Some(
            "Command line or flag file only: from osquery 5.4.0 on, a config that sets it is obeyed but for this, with a warning."
                .to_owned(),
        ),
    }
}

/// What is typed about an option.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OptionDraft {
    /// The flag's name.
    pub name: String,
    /// JSON, or a bare word that is taken for a text.
    pub value: String,
    /// Tag expression.
    pub target: String,
    /// Of several that apply the highest wins.
    pub priority: String,
}

impl From<&OptionRecord> for OptionDraft {
    fn from(record: &OptionRecord) -> Self {
        let values = &record.values;
        Self {
            name: values.name.clone(),
            value: values.value.to_string(),
            target: values.target.clone(),
            priority: values.priority.to_string(),
        }
    }
}

/// Is the value one that osqueryd takes for this option? Says what is wrong with it.
fn check_value(name: &str, value: &Value) -> std::result::Result<(), String> {
    let wrong = match value {
        Value::String(text) if text.is_empty() => "osquery skips an empty value.",
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            "osquery misreads numbers with a point: use a whole number, or a text in quotes."
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {
            "A text, a whole number, true or false is needed."
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            return flags::find(name).map_or(Ok(()), |flag| flag.check(value));
        }
    };
    Err(wrong.to_owned())
}

fn validate(draft: &OptionDraft) -> Result<OptionValues> {
    let mut check = Check::default();
    let name = check.name("name", draft.name.trim().trim_start_matches("--"), 100);
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        check.wrong(
            "name",
            "An option's name has letters, digits and underscores only.",
        );
    }
    if name == "pack_delimiter" {
        check.wrong(
            "name",
            "The delimiter is always \"/\": names of results could not be taken apart otherwise.",
        );
    }
    let typed = check.line("value", &draft.value, 4000);
    let value = serde_json::from_str(&typed).unwrap_or_else(|_| Value::from(typed.as_str()));
    if let Err(sentence) = check_value(&name, &value) {
        check.wrong("value", sentence);
    }
    let target = check.target("target", &draft.target);
    let priority = check.priority("priority", &draft.priority);
    check.done()?;
    Ok(OptionValues {
        name,
        value,
        target,
        priority,
    })
}

/// Sets an option for a target.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    draft: &OptionDraft,
    saving: &Saving,
) -> Result<OptionId> {
    let values = validate(draft)?;
    let id = OptionId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    taken(
        options::insert(&mut tx, id, &values, app.now()).await,
        "options_name_target_key",
        "target",
        TAKEN,
    )?;
    let (name, after) = (&values.name, Some(json!(values)));
    let change = Change {
        action: "options.create",
        kind: "option",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes an option.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    id: OptionId,
    draft: &OptionDraft,
    saving: &Saving,
) -> Result<()> {
    let values = validate(draft)?;
    let mut tx = ConfigChange::begin(app).await?;
    let before = options::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    taken(
        options::update(&mut tx, id, &values, app.now()).await,
        "options_name_target_key",
        "target",
        TAKEN,
    )?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let name = &values.name;
    let change = Change {
        action: "options.update",
        kind: "option",
        id: id.to_string(),
        name,
        before,
        after,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// Takes an option back.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    id: OptionId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let found = options::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    let name = &found.values.name;
    super::validate::confirmed(confirm, name)?;
    options::delete(&mut tx, id).await?;
    let before = Some(json!(found));
    let change = Change {
        action: "options.delete",
        kind: "option",
        id: id.to_string(),
        name,
        before,
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}
