//! Destinations: where alerts go. Their settings are sealed; what is secret in them is never shown again, and an empty field keeps it.

use std::collections::BTreeMap;

use ostiary_domain::finding::Severity;
use ostiary_domain::ids::{DeliveryId, DestinationId};
use ostiary_outputs::destinations::send_test as send_test_alert;
use ostiary_outputs::destinations::{Destination, KINDS, Kind, SEAL_PURPOSE};
use ostiary_outputs::{Message, Outbound, Templates, TestAlert, Told, check_templates};
use ostiary_store::destinations::{self, DestinationLine, DestinationValues};
use ostiary_store::{Conn, Db};
use serde_json::{Map, Value, json};

use super::audit::{Change, record};
use super::kind_fields::settings_of;
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
    /// The mildest severity that is told; empty for all.
    pub min_severity: String,
    /// Tag expression: of which nodes.
    pub target: String,
    /// Also of rules that do not name it?
    pub takes_all: bool,
    /// Also when a finding is acknowledged or resolved?
    pub tells_changes: bool,
    /// For how many minutes alerts are gathered; empty: not at all.
    pub digest_minutes: String,
    /// Its own title and text, or nothing.
    pub templates: Templates,
    /// Those fields of the kind that the form offered, as typed.
    pub fields: BTreeMap<String, String>,
}

struct Checked {
    name: String,
    settings: Value,
    destination: Box<dyn Destination>,
    min_severity: String,
    target: String,
    takes_all: bool,
    tells_changes: bool,
    digest_minutes: i32,
    templates: Templates,
}

fn validate(
    app: &App,
    draft: &DestinationDraft,
    kind: &'static Kind,
    stored: &Map<String, Value>,
) -> Result<Checked> {
    let mut check = Check::default();
    let name = check.name("name", &draft.name, 100);
    let min_severity = if draft.min_severity.is_empty() {
        Severity::Info.as_str().to_owned()
    } else {
        let words = Severity::ALL.map(Severity::as_str);
        check.choice("min_severity", &draft.min_severity, &words)
    };
    let target = check.target("target", &draft.target);
    let digest_minutes = check
        .optional_number("digest_minutes", &draft.digest_minutes, 0, 1440)
        .unwrap_or(0);
    if digest_minutes > 0 && !kind.digests {
        let sentence = format!("{} takes one alert at a time.", kind.label);
        check.wrong("digest_minutes", sentence);
    }
    let templates = Templates {
        title: check.line("title_template", &draft.templates.title, 1000),
        text: check.text("text_template", &draft.templates.text, 10_000),
    };
    if let Err((field, error)) = check_templates(&templates, app.now()) {
        check.wrong(field, sentence(&error));
    }
    let settings = settings_of(&mut check, kind.fields, &draft.fields, stored);
    check.done()?;
    let destination = kind
        .read(&settings)
        .map_err(|error| Error::field(error.field, sentence(&error)))?;
    Ok(Checked {
        name,
        settings,
        destination,
        min_severity,
        target,
        takes_all: draft.takes_all,
        tells_changes: draft.tells_changes,
        digest_minutes: i32::try_from(digest_minutes).expect("it is within a day"),
        templates,
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
    let checked = validate(app, draft, kind, &Map::new())?;
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
    let checked = validate(app, draft, kind, &stored)?;
    let (sealed, summary) = (seal(app, &checked.settings), checked.destination.summary());
    let values = values(&checked, kind, &sealed, &summary, draft.enabled);
    taken(
        destinations::update(&mut tx, id, &values, app.now()).await,
        "destinations_name_key",
        "name",
        NAME_TAKEN,
    )?;
    let (before, after, name) = (
        Some(shown_line(&before)),
        Some(shown(&values)),
        &checked.name,
    );
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
        min_severity: &checked.min_severity,
        target: &checked.target,
        takes_all: checked.takes_all,
        tells_changes: checked.tells_changes,
        digest_minutes: checked.digest_minutes,
        title_template: &checked.templates.title,
        text_template: &checked.templates.text,
    }
}

/// What the audit log may tell of a destination.
fn shown(values: &DestinationValues<'_>) -> Value {
    json!({
        "name": values.name, "kind": values.kind, "summary": values.summary, "enabled": values.enabled,
        "min_severity": values.min_severity, "target": values.target, "takes_all": values.takes_all,
        "tells_changes": values.tells_changes, "digest_minutes": values.digest_minutes,
        "title_template": values.title_template, "text_template": values.text_template,
    })
}

fn shown_line(line: &DestinationLine) -> Value {
    shown(&DestinationValues {
        name: &line.name,
        kind: &line.kind,
        settings_sealed: &[],
        summary: &line.summary,
        enabled: line.enabled,
        min_severity: &line.min_severity,
        target: &line.target,
        takes_all: line.takes_all,
        tells_changes: line.tells_changes,
        digest_minutes: line.digest_minutes,
        title_template: &line.title_template,
        text_template: &line.text_template,
    })
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
    let before = Some(shown_line(&found));
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
    let outbound = Outbound::new(app.settings.outputs.clone())
        .map_err(|error| Error::Internal(error.into()))?;
    let manager_url = app.settings.public.manager_url.trim_end_matches('/');
    let test = TestAlert {
        id: DeliveryId(ostiary_boot::clock::new_id()),
        destination: &found.name,
        url: &format!("{manager_url}/destinations/{id}"),
        templates: &Templates {
            title: found.title_template.clone(),
            text: found.text_template.clone(),
        },
        now: app.now(),
    };
    let settings = Value::Object(settings);
    let sent = send_test_alert(&outbound, kind_of(&found.kind)?, &settings, &test).await;
    Ok(sent.map_err(|error| error.answer().to_owned()))
}

/// What templates make of a finding as any fleet may have it. Nothing is stored or sent.
///
/// # Errors
/// [`Error::Invalid`] on the template that is not understood.
pub fn preview(app: &App, _: &Permit<Admin>, templates: &Templates) -> Result<Told> {
    check_templates(templates, app.now())
        .map_err(|(field, error)| Error::field(field, sentence(&error)))?;
    Ok(Told::of(&Message::sample(templates.clone(), app.now())))
}
