//! Sinks: where everything goes that is reported. Their settings are sealed; what is secret in them is never shown again, and an empty
//! field keeps it. They are run by the worker, which also sends their tests: only it can write their files.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::SinkId;
use ostiary_domain::sink::LineType;
use ostiary_outputs::sinks::{KINDS, Kind, SEAL_PURPOSE, Sink};
use ostiary_store::sinks::edits::{self, SinkLine, SinkValues};
use ostiary_store::sinks::{Source, cursors};
use ostiary_store::{Conn, Db, Tx};
use serde_json::{Map, Value, json};

use super::audit::{Change, record};
use super::kind_fields::settings_of;
use super::validate::{Check, lines, sentence, taken};
use crate::auth::{Admin, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const NAME_TAKEN: &str = "There is already a sink of this name.";
/// Patterns of query names that one sink may have.
const MOST_PATTERNS: usize = 100;

/// What is typed about a sink.
#[derive(Debug, Clone, Default)]
pub struct SinkDraft {
    /// Unique.
    pub name: String,
    /// Of [`KINDS`].
    pub kind: String,
    /// Is anything forwarded?
    pub enabled: bool,
    /// Types of lines: `result`, `status`, `finding`, `audit`.
    pub types: Vec<String>,
    /// Patterns of query names, one a line.
    pub queries: String,
    /// Tag expression.
    pub target: String,
    /// Those fields of the kind that the form offered, as typed.
    pub fields: BTreeMap<String, String>,
}

struct Checked {
    name: String,
    types: Vec<String>,
    sources: Vec<Source>,
    queries: Vec<String>,
    target: String,
    settings: Value,
    sink: Box<dyn Sink>,
}

fn validate(
    draft: &SinkDraft,
    kind: &'static Kind,
    stored: &Map<String, Value>,
) -> Result<Checked> {
    let mut check = Check::default();
    let name = check.name("name", &draft.name, 100);
    let mut types: Vec<LineType> = Vec::new();
    for name in &draft.types {
        match LineType::parse(name) {
            Some(line) => types.push(line),
            None => check.wrong("types", format!("There is no type \"{name}\".")),
        }
    }
    types.sort_unstable();
    types.dedup();
    if types.is_empty() {
        check.wrong("types", "Choose at least one type.");
    }
    let types: Vec<String> = types.iter().map(|line| line.as_str().to_owned()).collect();
    let queries = lines(&check.text("queries", &draft.queries, 20_000));
    if queries.len() > MOST_PATTERNS {
        check.wrong("queries", format!("At most {MOST_PATTERNS} patterns."));
    }
    let target = check.target("target", &draft.target);
    let settings = settings_of(&mut check, kind.fields, &draft.fields, stored);
    check.done()?;
    let sink = kind
        .read(&settings)
        .map_err(|error| Error::field(error.field, sentence(&error)))?;
    Ok(Checked {
        name,
        sources: types
            .iter()
            .filter_map(|name| Source::of_type(name))
            .collect(),
        types,
        queries,
        target,
        settings,
        sink,
    })
}

fn kind_of(name: &str) -> Result<&'static Kind> {
    Kind::find(name).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        let names = names.join(", ");
        Error::field(
            "kind",
            format!("There is no kind \"{name}\"; there are {names}."),
        )
    })
}

/// The settings of a sink, opened.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn open_settings(app: &App, conn: &mut Conn, id: SinkId) -> Result<Map<String, Value>> {
    let sealed = edits::find_sealed(conn, id).await?.ok_or(Error::NotFound)?;
    let key = &app.settings.keys.destinations;
    let opened = key.open(SEAL_PURPOSE, &sealed).ok();
    // Sealed with another key: they are typed in anew, and the cursors are kept.
    Ok(opened
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default())
}

/// Makes a sink. It begins with what comes from now on.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(app: &App, permit: &Permit<Admin>, draft: &SinkDraft) -> Result<SinkId> {
    let kind = kind_of(&draft.kind)?;
    let checked = validate(draft, kind, &Map::new())?;
    let (sealed, summary) = (seal(app, &checked.settings), checked.sink.summary());
    let values = values(&checked, kind, &sealed, &summary, draft.enabled);
    let id = SinkId(ostiary_boot::clock::new_id());
    let mut tx = app.db.begin().await?;
    taken(
        edits::insert(&mut tx, id, &values, app.now()).await,
        "sinks_name_key",
        "name",
        NAME_TAKEN,
    )?;
    cursors::set_sources(&mut tx, id, &checked.sources).await?;
    let change = Change {
        action: "sinks.create",
        kind: "sink",
        id: id.to_string(),
        name: &checked.name,
        after: Some(shown(&values)),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Changes a sink; its kind stays, and it goes on where it stands. A type that is added begins with what comes from now on.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`].
pub async fn update(
    app: &App,
    permit: &Permit<Admin>,
    id: SinkId,
    draft: &SinkDraft,
) -> Result<()> {
    let (mut tx, before) = begin(app, id).await?;
    let stored = open_settings(app, &mut tx, id).await?;
    let kind = kind_of(&before.kind)?;
    let checked = validate(draft, kind, &stored)?;
    let (sealed, summary) = (seal(app, &checked.settings), checked.sink.summary());
    let values = values(&checked, kind, &sealed, &summary, draft.enabled);
    taken(
        edits::update(&mut tx, id, &values, app.now()).await,
        "sinks_name_key",
        "name",
        NAME_TAKEN,
    )?;
    cursors::set_sources(&mut tx, id, &checked.sources).await?;
    let change = Change {
        action: "sinks.update",
        kind: "sink",
        id: id.to_string(),
        name: &checked.name,
        before: Some(told(&before)),
        after: Some(shown(&values)),
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

fn seal(app: &App, settings: &Value) -> Vec<u8> {
    let key = &app.settings.keys.destinations;
    key.seal(SEAL_PURPOSE, settings.to_string().as_bytes())
}

fn values<'a>(
    checked: &'a Checked,
    kind: &'a Kind,
    sealed: &'a [u8],
    summary: &'a str,
    enabled: bool,
) -> SinkValues<'a> {
    SinkValues {
        name: &checked.name,
        kind: kind.name,
        settings_sealed: sealed,
        summary,
        enabled,
        types: &checked.types,
        queries: &checked.queries,
        target: &checked.target,
    }
}

/// What the audit log may tell of a sink.
fn shown(values: &SinkValues<'_>) -> Value {
    json!({"name": values.name, "kind": values.kind, "summary": values.summary, "enabled": values.enabled, "types": values.types,
        "queries": values.queries, "target": values.target})
}

fn told(line: &SinkLine) -> Value {
    json!({"name": line.name, "kind": line.kind, "summary": line.summary, "enabled": line.enabled, "types": line.types,
        "queries": line.queries, "target": line.target})
}

async fn begin(app: &App, id: SinkId) -> Result<(Tx, SinkLine)> {
    let mut tx = app.db.begin().await?;
    let found = edits::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    Ok((tx, found))
}

async fn note(
    app: &App,
    tx: &mut Tx,
    permit: &Permit<Admin>,
    sink: &SinkLine,
    action: &'static str,
    after: Option<Value>,
) -> Result<()> {
    let change = Change {
        action,
        kind: "sink",
        id: sink.id.to_string(),
        name: &sink.name,
        before: None,
        after,
    };
    Ok(record(app, tx, permit, change).await?)
}

/// Pauses a sink: it stays where it stands.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn pause(app: &App, permit: &Permit<Admin>, id: SinkId) -> Result<()> {
    set_enabled(app, permit, id, false, "sinks.pause").await
}

/// Lets a sink go on where it stands; one that failed is tried at once.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn resume(app: &App, permit: &Permit<Admin>, id: SinkId) -> Result<()> {
    set_enabled(app, permit, id, true, "sinks.resume").await
}

async fn set_enabled(
    app: &App,
    permit: &Permit<Admin>,
    id: SinkId,
    enabled: bool,
    action: &'static str,
) -> Result<()> {
    let (mut tx, found) = begin(app, id).await?;
    edits::set_enabled(&mut tx, id, enabled, app.now()).await?;
    note(app, &mut tx, permit, &found, action, None).await?;
    Ok(Db::commit(tx).await?)
}

/// Sends again what came since a time, with a few older lines perhaps; what is older than retention is gone.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `since`.
pub async fn replay(
    app: &App,
    permit: &Permit<Admin>,
    id: SinkId,
    since: DateTime<Utc>,
) -> Result<()> {
    if since > app.now() {
        return Err(Error::field("since", "This lies in the future."));
    }
    let (mut tx, found) = begin(app, id).await?;
    cursors::replay(&mut tx, id, since).await?;
    edits::hurry(&mut tx, id, app.now()).await?;
    let after = Some(json!({"since": since}));
    note(app, &mut tx, permit, &found, "sinks.replay", after).await?;
    Ok(Db::commit(tx).await?)
}

/// Asks the worker for a test: one line of type `test`. How it went is told with the sink.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn send_test(app: &App, permit: &Permit<Admin>, id: SinkId) -> Result<()> {
    let (mut tx, found) = begin(app, id).await?;
    edits::ask_test(&mut tx, id, app.now()).await?;
    note(app, &mut tx, permit, &found, "sinks.send_test", None).await?;
    Ok(Db::commit(tx).await?)
}

/// Deletes a sink, with the place where it stands.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(app: &App, permit: &Permit<Admin>, id: SinkId, confirm: &str) -> Result<()> {
    let (mut tx, found) = begin(app, id).await?;
    super::validate::confirmed(confirm, &found.name)?;
    edits::delete(&mut tx, id).await?;
    let change = Change {
        action: "sinks.delete",
        kind: "sink",
        id: id.to_string(),
        name: &found.name,
        before: Some(told(&found)),
        after: None,
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}
