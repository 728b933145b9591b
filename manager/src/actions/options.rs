//! osquery's options for nodes.

use ostiary_domain::ids::OptionId;
use ostiary_store::Db;
use ostiary_store::options::{self, OptionRecord, OptionValues};
use serde::Serialize;
use serde_json::{Value, json};

use super::audit::{Change, record};
use super::validate::{Check, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a value of this option for this target.";

/// Options that a form offers: those of osquery 5 that a config may set and that fleets use.
pub const KNOWN: &[&str] = &[
    "buffered_log_max",
    "decorations_top_level",
    "disable_decorators",
    "distributed_denylist_duration",
    "distributed_interval",
    "distributed_tls_max_attempts",
    "events_expiry",
    "events_max",
    "events_optimize",
    "logger_event_type",
    "logger_min_status",
    "logger_snapshot_event_type",
    "logger_tls_backoff_max",
    "logger_tls_compress",
    "logger_tls_max_lines",
    "logger_tls_max_linesize",
    "logger_tls_period",
    "pack_refresh_interval",
    "read_max",
    "schedule_default_interval",
    "schedule_epoch",
    "schedule_max_drift",
    "schedule_reload",
    "schedule_splay_percent",
    "tls_disable_status_log",
    "yara_sigurl_authenticate",
];

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
    match &value {
        Value::String(text) if text.is_empty() => {
            check.wrong("value", "osquery skips an empty value.");
        }
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            check.wrong(
                "value",
                "osquery misreads numbers with a point: use a whole number, or a text in quotes.",
            );
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
        Value::Null | Value::Array(_) | Value::Object(_) => {
            check.wrong("value", "A text, a whole number, true or false is needed.");
        }
    }
    let target = check.target("target", &draft.target);
    let priority = if draft.priority.trim().is_empty() {
        0
    } else {
        check.number("priority", &draft.priority, -1000, 1000)
    };
    check.done()?;
    Ok(OptionValues {
        name,
        value,
        target,
        priority: i32::try_from(priority).unwrap_or(0),
    })
}

/// Sets an option for a target.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(app: &App, permit: &Permit<Edit>, draft: &OptionDraft) -> Result<OptionId> {
    let values = validate(draft)?;
    let id = OptionId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    taken(
        options::insert(&mut tx, id, &values, app.now()).await,
        "options_name_target_key",
        "target",
        TAKEN,
    )?;
    super::check_config_sizes(&mut tx).await?;
    let (name, after) = (&values.name, Some(json!(values)));
    let change = Change {
        action: "options.create",
        kind: "option",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
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
) -> Result<()> {
    let values = validate(draft)?;
    let mut tx = app.db.begin().await?;
    let before = options::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    taken(
        options::update(&mut tx, id, &values, app.now()).await,
        "options_name_target_key",
        "target",
        TAKEN,
    )?;
    super::check_config_sizes(&mut tx).await?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let name = &values.name;
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "options.update",
            kind: "option",
            id: id.to_string(),
            name,
            before,
            after,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}

/// Takes an option back.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(app: &App, permit: &Permit<Edit>, id: OptionId, confirm: &str) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let found = options::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    let name = &found.values.name;
    super::validate::confirmed(confirm, name)?;
    options::delete(&mut tx, id).await?;
    let before = Some(json!(found));
    record(
        app,
        &mut tx,
        permit,
        Change {
            action: "options.delete",
            kind: "option",
            id: id.to_string(),
            name,
            before,
            after: None,
        },
    )
    .await?;
    Ok(Db::commit(tx).await?)
}
