//! Destinations: where alerts go. Their settings are sealed; what is secret in them is never shown again, and an empty field keeps it.

use std::collections::BTreeMap;

use ostiary_domain::ids::{DeliveryId, DestinationId};
use ostiary_outputs::destinations::send_test as send_test_alert;
use ostiary_outputs::destinations::{Destination, Input, KINDS, Kind, SEAL_PURPOSE};
use ostiary_outputs::{Outbound, SendError, TestAlert};
use ostiary_store::destinations::{self, DestinationValues};
use ostiary_store::{Conn, Db};
use serde_json::{Map, Value, json};

use super::audit::{Change, record};
use super::validate::{Check, sentence, taken};
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a destination of this name.";

/// What is typed about a destination.
#[derive(Debug, Clone, Default)]
pub struct DestinationDraft {
    /// Unique.
    pub name: String,
    /// Of [`KINDS`].
    pub kind: String,
    /// Is anything sent there?
    pub enabled: bool,
    /// Those fields of the kind that the form offered, as typed.
    pub fields: BTreeMap<String, String>,
}

/// The settings that the fields make. A secret left empty is taken from `stored`, and so is what the form did not offer.
fn settings_of(
    check: &mut Check,
    kind: &Kind,
    draft: &DestinationDraft,
    stored: &Map<String, Value>,
) -> Value {
    let mut settings = Map::new();
    for field in kind.fields {
        let Some(typed) = draft.fields.get(field.name) else {
            match stored.get(field.name) {
                Some(value) => drop(settings.insert(field.name.to_owned(), value.clone())),
                None if field.required => check.wrong(field.name, "This must not be empty."),
                None => {}
            }
            continue;
        };
        let text = match field.input {
            Input::LongText => check.text(field.name, typed, 20_000),
            // A blank may be part of a password.
            Input::Secret => typed.to_owned(),
            _ => check.line(field.name, typed, 2000),
        };
        let value = match field.input {
            Input::Secret if text.is_empty() => {
                stored.get(field.name).cloned().unwrap_or(Value::Null)
            }
            _ if text.is_empty() => Value::Null,
            Input::Number => Value::from(check.number(field.name, &text, 1, 65_535)),
            Input::Choice(choices) => Value::from(check.choice(field.name, &text, choices)),
            _ => Value::from(text),
        };
        if field.required && value.is_null() {
            check.wrong(field.name, "This must not be empty.");
        }
        if !value.is_null() {
            settings.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(settings)
}

struct Checked {
    name: String,
    settings: Value,
    destination: Box<dyn Destination>,
}

fn validate(
    draft: &DestinationDraft,
    kind: &'static Kind,
    stored: &Map<String, Value>,
) -> Result<Checked> {
    let mut check = Check::default();
    let name = check.name("name", &draft.name, 100);
    let settings = settings_of(&mut check, kind, draft, stored);
    check.done()?;
    let destination = kind
        .read(&settings)
        .map_err(|error| Error::field("form", sentence(&error)))?;
    Ok(Checked {
        name,
        settings,
        destination,
    })
}

fn kind_of(name: &str) -> Result<&'static Kind> {
    Kind::find(name).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        Error::field(
            "kind",
            format!(
                "There is no kind \"{name}\"; there are {}.",
                names.join(", ")
            ),
        )
    })
}

fn seal(app: &App, settings: &Value) -> Vec<u8> {
    app.settings
        .keys
        .destinations
        .seal(SEAL_PURPOSE, settings.to_string().as_bytes())
}

/// The settings of a destination, opened.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when another key sealed them.
pub async fn open_settings(
    app: &App,
    conn: &mut Conn,
    id: DestinationId,
) -> Result<Map<String, Value>> {
    let sealed = destinations::find_sealed(conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let opened = app
        .settings
        .keys
        .destinations
        .open(SEAL_PURPOSE, &sealed)
        .ok();
    opened.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
        Error::Refused("The settings were sealed with another key than [keys] destinations of today: make the destination anew.".to_owned())
    })
}

/// Makes a destination.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(
    app: &App,
    permit: &Permit<Admin>,
    draft: &DestinationDraft,
) -> Result<DestinationId> {
    let kind = kind_of(&draft.kind)?;
    let checked = validate(draft, kind, &Map::new())?;
    let (sealed, summary) = (seal(app, &checked.settings), checked.destination.summary());
    let values = values(&checked, kind, &sealed, &summary, draft.enabled);
    let id = DestinationId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    taken(
        destinations::insert(&mut tx, id, &values, app.now()).await,
        "destinations_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let (name, after) = (&checked.name, Some(shown(&values)));
    let change = Change {
        action: "destinations.create",
        kind: "destination",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes a destination; its kind stays.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Admin>,
    id: DestinationId,
    draft: &DestinationDraft,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let before = destinations::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let stored = open_settings(app, &mut tx, id).await?;
    let kind = kind_of(&before.kind)?;
    let checked = validate(draft, kind, &stored)?;
    let (sealed, summary) = (seal(app, &checked.settings), checked.destination.summary());
    let values = values(&checked, kind, &sealed, &summary, draft.enabled);
    taken(
        destinations::update(&mut tx, id, &values, app.now()).await,
        "destinations_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let before = json!({"name": before.name, "kind": before.kind, "summary": before.summary, "enabled": before.enabled});
    let (before, after, name) = (Some(before), Some(shown(&values)), &checked.name);
    let change = Change {
        action: "destinations.update",
        kind: "destination",
        id: id.to_string(),
        name,
        before,
        after,
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

fn values<'a>(
    checked: &'a Checked,
    kind: &'a Kind,
    sealed: &'a [u8],
    summary: &'a str,
    enabled: bool,
) -> DestinationValues<'a> {
    DestinationValues {
        name: &checked.name,
        kind: kind.name,
        settings_sealed: sealed,
        summary,
        enabled,
    }
}

/// What the audit log may tell of a destination.
fn shown(values: &DestinationValues<'_>) -> Value {
    json!({"name": values.name, "kind": values.kind, "summary": values.summary, "enabled": values.enabled})
}

/// Deletes a destination; its deliveries stay with its name, those that wait are given up by the worker.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Admin>,
    id: DestinationId,
    confirm: &str,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let found = destinations::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    super::validate::confirmed(confirm, &found.name)?;
    destinations::delete(&mut tx, id).await?;
    let before = Some(
        json!({"name": found.name, "kind": found.kind, "summary": found.summary, "enabled": found.enabled}),
    );
    let change = Change {
        action: "destinations.delete",
        kind: "destination",
        id: id.to_string(),
        name: &found.name,
        before,
        after: None,
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// Sends a test message now and returns what the destination answered, or why it did not take it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] when the settings cannot be opened.
pub async fn send_test(
    app: &App,
    permit: &Permit<Admin>,
    id: DestinationId,
) -> Result<std::result::Result<String, String>> {
    let mut tx = app.db.begin().await?;
    let found = destinations::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let settings = open_settings(app, &mut tx, id).await?;
    let change = Change {
        action: "destinations.send_test",
        kind: "destination",
        id: id.to_string(),
        name: &found.name,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    // Before anything leaves the house: no call is made inside a transaction (invariant I7).
    Db::commit(tx).await?;
    let outbound =
        Outbound::new(app.settings.outputs).map_err(|error| Error::Internal(error.into()))?;
    let manager_url = app.settings.public.manager_url.trim_end_matches('/');
    let test = TestAlert {
        id: DeliveryId(ostiary_boot::clock::new_id()),
        destination: &found.name,
        url: &format!("{manager_url}/destinations/{id}"),
        now: app.now(),
    };
    let settings = Value::Object(settings);
    let sent = send_test_alert(&outbound, kind_of(&found.kind)?, &settings, &test).await;
    Ok(sent.map_err(|error| match error {
        SendError::Retry { answer, .. } | SendError::Refused { answer } => answer,
    }))
}
