//! Sinks: does the SIEM get everything, and how late?

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, NaiveDateTime, Utc};
use ostiary_domain::ids::SinkId;
use ostiary_domain::sink::LineType;
use ostiary_outputs::destinations::{Field, Input};
use ostiary_outputs::sinks::{KINDS, Kind};
use ostiary_store::Conn;
use ostiary_store::sinks::cursors;
use ostiary_store::sinks::edits::{self, SinkLine};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::sinks::{self, SinkDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/sinks/form.html";

/// What people may choose to have forwarded: name, words.
const TYPES: [(LineType, &str); 4] = [
    (LineType::Result, "Results: every row of every query"),
    (LineType::Status, "Status logs of osqueryd"),
    (LineType::Finding, "Findings, whenever their state changes"),
    (LineType::Audit, "The audit log"),
];

/// A sink with where it stands, for lists and for REST.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn with_lag(conn: &mut Conn, line: &SinkLine) -> Result<Value> {
    let mut sources = Vec::new();
    let (mut rows, mut oldest_at) = (0, None::<DateTime<Utc>>);
    for cursor in cursors::list(conn, SinkId(line.id)).await? {
        let lag = cursors::lag(conn, &cursor).await?;
        rows += lag.rows;
        oldest_at = oldest_at.into_iter().chain(lag.oldest_at).min();
        sources.push(json!({"table": cursor.source.table(), "after_id": cursor.position.after_id, "behind": lag.rows,
            "oldest_at": lag.oldest_at, "lost": cursor.lost}));
    }
    let mut shown = json!(line);
    shown["state"] = state(line).into();
    shown["behind"] = rows.into();
    shown["oldest_at"] = json!(oldest_at);
    shown["sources"] = sources.into();
    Ok(shown)
}

/// In one word how it goes.
fn state(line: &SinkLine) -> &'static str {
    if !line.enabled {
        "paused"
    } else if line.last_error.is_empty() {
        "forwarding"
    } else {
        "failing"
    }
}

fn kind_of(name: &str) -> Result<&'static Kind> {
    Kind::find(name).ok_or(Error::NotFound)
}

fn draft(kind: &Kind, fields: &Fields) -> SinkDraft {
    SinkDraft {
        name: fields.owned("name"),
        kind: kind.name.to_owned(),
        enabled: fields.is_on("enabled"),
        types: TYPES
            .iter()
            .map(|(line, _)| line.as_str())
            .filter(|name| fields.is_on(&format!("type_{name}")))
            .map(str::to_owned)
            .collect(),
        queries: fields.owned("queries"),
        target: fields.owned("target"),
        fields: kind
            .fields
            .iter()
            .filter(|field| fields.iter().any(|(name, _)| name == field.name))
            .map(|field| (field.name.to_owned(), fields.owned(field.name)))
            .collect(),
    }
}

fn draft_of(line: &SinkLine, kind: &Kind, stored: &Map<String, Value>) -> SinkDraft {
    let text = |name: &str| super::table::cell(stored.get(name)).unwrap_or_default();
    SinkDraft {
        name: line.name.clone(),
        kind: kind.name.to_owned(),
        enabled: line.enabled,
        types: line.types.clone(),
        queries: line.queries.join("\n"),
        target: line.target.clone(),
        fields: kind
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), text(field.name)))
            .collect(),
    }
}

/// A fresh draft: everything but the audit log, and what the fields begin with.
fn empty(kind: &Kind) -> SinkDraft {
    let begin = |input: Input, default: &str| match input {
        Input::Choice([(first, _), ..]) if default.is_empty() => (*first).to_owned(),
        _ => default.to_owned(),
    };
    SinkDraft {
        enabled: true,
        types: ["result", "status", "finding"].map(str::to_owned).to_vec(),
        fields: kind
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), begin(field.input, field.default)))
            .collect(),
        ..SinkDraft::default()
    }
}

/// The fields of the kind as typed; secrets come back empty, and `is_stored` says that there is one.
pub(super) fn fields_of(
    fields: &[Field],
    typed: &BTreeMap<String, String>,
    stored: &Map<String, Value>,
) -> Vec<Value> {
    fields
        .iter()
        .map(|field| {
            let (input, choices) = match field.input {
                Input::Text => ("text", [].as_slice()),
                Input::Number => ("number", [].as_slice()),
                Input::Secret => ("secret", [].as_slice()),
                Input::LongText => ("area", [].as_slice()),
                Input::Choice(choices) => ("select", choices),
            };
            let is_stored = input == "secret" && stored.contains_key(field.name);
            let value = match input {
                "secret" => "",
                _ => typed.get(field.name).map_or("", String::as_str),
            };
            json!({"name": field.name, "label": field.label, "help": field.help, "input": input, "choices": choices,
                "required": field.required && !is_stored, "is_stored": is_stored, "value": value})
        })
        .collect()
}

fn context(
    known: Option<(SinkId, &str)>,
    kind: &Kind,
    draft: &SinkDraft,
    stored: &Map<String, Value>,
    errors: &FieldErrors,
) -> Value {
    let types: Vec<Value> = TYPES
        .iter()
        .map(|(line, words)| {
            let name = line.as_str();
            let is_on = draft.types.iter().any(|one| one == name);
            json!({"name": name, "words": words, "is_on": is_on})
        })
        .collect();
    json!({
        "sink": known.map(|(id, name)| json!({"id": id, "name": name})),
        "kind": {"name": kind.name, "title": kind.label, "meaning": kind.meaning},
        "fields": fields_of(kind.fields, &draft.fields, stored),
        "types": types,
        "form": {"name": draft.name, "enabled": draft.enabled, "queries": draft.queries, "target": draft.target},
        "errors": errors,
    })
}

/// `GET /sinks`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let mut sinks = Vec::new();
    for line in edits::list(&mut conn).await? {
        sinks.push(with_lag(&mut conn, &line).await?);
    }
    drop(conn);
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| json!({"name": kind.name, "title": kind.label, "meaning": kind.meaning}))
        .collect();
    Page {
        template: "pages/sinks/list.html",
        title: "Sinks",
        nav: "sinks",
    }
    .show(&app, &visitor, json!({"sinks": sinks, "kinds": kinds}))
    .await
}

async fn shown(app: &App, id: SinkId, since: &str, errors: FieldErrors) -> Result<(String, Value)> {
    let mut conn = app.db.acquire().await?;
    let line = edits::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let sink = with_lag(&mut conn, &line).await?;
    let title = Kind::find(&line.kind).map_or(line.kind.as_str(), |kind| kind.label);
    let context = json!({"sink": sink, "kind_title": title, "since": since, "errors": errors});
    Ok((line.name, context))
}

/// `GET /sinks/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<SinkId>,
) -> Result<Response> {
    let (name, context) = shown(&app, id, "", FieldErrors::default()).await?;
    Page {
        template: "pages/sinks/show.html",
        title: &name,
        nav: "sinks",
    }
    .show(&app, &visitor, context)
    .await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    kind: String,
}

/// `GET /sinks/new?kind=`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let kind = match asked.kind.as_str() {
        "" => &KINDS[0],
        name => kind_of(name)?,
    };
    let context = context(
        None,
        kind,
        &empty(kind),
        &Map::new(),
        &FieldErrors::default(),
    );
    Page {
        template: FORM,
        title: "New sink",
        nav: "sinks",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /sinks`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let kind = kind_of(fields.text("kind"))?;
    let typed = draft(kind, &fields);
    match sinks::create(&app, &permit, &typed).await {
        Ok(id) => {
            let said = "The sink was made and forwards what comes from now on. Send a test to see whether it works.";
            visitor.done(&format!("/sinks/{id}"), said).await
        }
        Err(error) => {
            let context = context(None, kind, &typed, &Map::new(), &error.into_fields()?);
            Page {
                template: FORM,
                title: "New sink",
                nav: "sinks",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `GET /sinks/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Response> {
    let (line, stored) = known(&app, id).await?;
    let kind = kind_of(&line.kind)?;
    let typed = draft_of(&line, kind, &stored);
    let context = context(
        Some((id, &line.name)),
        kind,
        &typed,
        &stored,
        &FieldErrors::default(),
    );
    Page {
        template: FORM,
        title: &format!("Edit {}", line.name),
        nav: "sinks",
    }
    .show(&app, &visitor, context)
    .await
}

async fn known(app: &App, id: SinkId) -> Result<(SinkLine, Map<String, Value>)> {
    let mut conn = app.db.acquire().await?;
    let line = edits::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let stored = sinks::open_settings(app, &mut conn, id).await?;
    Ok((line, stored))
}

/// `POST /sinks/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    fields: Fields,
) -> Result<Response> {
    let (line, stored) = known(&app, id).await?;
    let kind = kind_of(&line.kind)?;
    let typed = draft(kind, &fields);
    match sinks::update(&app, &permit, id, &typed).await {
        Ok(()) => visitor.done(&format!("/sinks/{id}"), "Saved.").await,
        Err(error) => {
            let errors = error.into_fields()?;
            let context = context(Some((id, &line.name)), kind, &typed, &stored, &errors);
            Page {
                template: FORM,
                title: &format!("Edit {}", line.name),
                nav: "sinks",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `POST /sinks/{id}/pause`
pub(crate) async fn pause(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Response> {
    let to = format!("/sinks/{id}");
    let result = sinks::pause(&app, &permit, id).await;
    let said = "The sink is paused, and stays where it stands.";
    visitor.answer(result, &to, said, &to).await
}

/// `POST /sinks/{id}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Response> {
    let to = format!("/sinks/{id}");
    let result = sinks::resume(&app, &permit, id).await;
    let said = "The sink goes on where it stood.";
    visitor.answer(result, &to, said, &to).await
}

/// `POST /sinks/{id}/test`
pub(crate) async fn send_test(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Response> {
    let to = format!("/sinks/{id}");
    let result = sinks::send_test(&app, &permit, id).await;
    let said = "The worker sends a test; its answer appears here within seconds.";
    visitor.answer(result, &to, said, &to).await
}

/// A time as people and date fields write it, in UTC: `2026-11-21T09:30`, `2026-11-21 09:30:00`, or with a zone.
pub(super) fn read_time(text: &str) -> Result<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    [
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d %H:%M:%S",
    ]
    .iter()
    .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
    .map(|at| at.and_utc())
    .ok_or_else(|| Error::field("since", "This is no time like 2026-11-21 09:30 (UTC)."))
}

/// `POST /sinks/{id}/replay`
pub(crate) async fn replay(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    fields: Fields,
) -> Result<Response> {
    let typed = fields.text("since");
    let done = match read_time(typed) {
        Ok(since) => sinks::replay(&app, &permit, id, since).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => {
            let said = "The sink is set back to that time and sends again what came since.";
            visitor.done(&format!("/sinks/{id}"), said).await
        }
        Err(error) => {
            let (name, context) = shown(&app, id, typed, error.into_fields()?).await?;
            Page {
                template: "pages/sinks/show.html",
                title: &name,
                nav: "sinks",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `POST /sinks/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    fields: Fields,
) -> Result<Response> {
    let result = sinks::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/sinks",
            "The sink was deleted.",
            &format!("/sinks/{id}"),
        )
        .await
}
