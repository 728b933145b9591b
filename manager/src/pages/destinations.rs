//! Destinations: does the alarm bell work?

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::finding::Severity;
use ostiary_domain::ids::DestinationId;
use ostiary_outputs::Templates;
use ostiary_outputs::destinations::{Field, Input, KINDS, Kind};
use ostiary_store::delivery_lists::{self, DeliveryFilter};
use ostiary_store::destinations as store;
use ostiary_store::tags;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Fields;
use super::findings::delivery_line;
use super::paging::{pager, request};
use super::shell::Page;
use super::sinks::{fields_of, read_time};
use crate::actions::deliveries;
use crate::actions::destinations::{self, DestinationDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

fn form(title: &str) -> Page<'_> {
    Page {
        template: "pages/destinations/form.html",
        title,
        nav: "destinations",
    }
}

/// The page of one destination.
fn one(name: &str) -> Page<'_> {
    Page {
        template: "pages/destinations/show.html",
        title: name,
        nav: "destinations",
    }
}

fn draft(kind: &Kind, fields: &Fields) -> DestinationDraft {
    DestinationDraft {
        name: fields.owned("name"),
        kind: kind.name.to_owned(),
        enabled: fields.is_on("enabled"),
        min_severity: fields.owned("min_severity"),
        target: fields.owned("target"),
        takes_all: fields.is_on("takes_all"),
        tells_changes: fields.is_on("tells_changes"),
        digest_minutes: fields.owned("digest_minutes"),
        templates: templates(fields),
        fields: kind
            .fields
            .iter()
            .filter(|field| fields.iter().any(|(name, _)| name == field.name))
            .map(|field| (field.name.to_owned(), fields.owned(field.name)))
            .collect(),
    }
}

fn templates(fields: &Fields) -> Templates {
    Templates {
        title: fields.owned("title_template"),
        text: fields.owned("text_template"),
    }
}

/// The form of a new destination.
fn fresh(kind: &Kind) -> DestinationDraft {
    let begin = |field: &Field| match field.input {
        Input::Choice([(first, _), ..]) if field.default.is_empty() => (*first).to_owned(),
        _ => field.default.to_owned(),
    };
    DestinationDraft {
        enabled: true,
        tells_changes: true,
        min_severity: "info".to_owned(),
        fields: kind
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), begin(field)))
            .collect(),
        ..DestinationDraft::default()
    }
}

fn draft_of(
    line: &store::DestinationLine,
    kind: &Kind,
    stored: &Map<String, Value>,
) -> DestinationDraft {
    let text = |name: &str| super::table::cell(stored.get(name)).unwrap_or_default();
    DestinationDraft {
        name: line.name.clone(),
        kind: kind.name.to_owned(),
        enabled: line.enabled,
        min_severity: line.min_severity.clone(),
        target: line.target.clone(),
        takes_all: line.takes_all,
        tells_changes: line.tells_changes,
        digest_minutes: match line.digest_minutes {
            0 => String::new(),
            minutes => minutes.to_string(),
        },
        templates: Templates {
            title: line.title_template.clone(),
            text: line.text_template.clone(),
        },
        fields: kind
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), text(field.name)))
            .collect(),
    }
}

fn kind_of(name: &str) -> Result<&'static Kind> {
    Kind::find(name).ok_or(Error::NotFound)
}

async fn context(
    app: &App,
    known: Option<(DestinationId, &str)>,
    kind: &Kind,
    (draft, stored): (&DestinationDraft, &Map<String, Value>),
    errors: &FieldErrors,
) -> Result<Value> {
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    let form = json!({
        "name": draft.name, "enabled": draft.enabled, "min_severity": draft.min_severity, "target": draft.target,
        "takes_all": draft.takes_all, "tells_changes": draft.tells_changes, "digest_minutes": draft.digest_minutes,
        "title_template": draft.templates.title, "text_template": draft.templates.text,
    });
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    Ok(json!({
        "destination": known,
        "kind": {"name": kind.name, "title": kind.label, "meaning": kind.meaning, "digests": kind.digests},
        "fields": fields_of(kind.fields, &draft.fields, stored), "form": form, "errors": errors, "all_tags": all_tags,
        "severities": Severity::ALL.map(|severity| [severity.as_str(), severity.as_str()]),
    }))
}

/// `GET /destinations`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let listed: Vec<Value> = found
        .iter()
        .map(|each| {
            let last = each.last_state.as_ref().map(|state| json!({"state": state, "at": each.last_at}));
            json!({"id": each.id, "name": each.name, "kind": each.kind, "summary": each.summary, "enabled": each.enabled,
                "rules": each.rules, "takes_all": each.takes_all, "last": last, "dead": each.dead, "failing": failing(each)})
        })
        .collect();
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| json!({"name": kind.name, "title": kind.label, "meaning": kind.meaning}))
        .collect();
    let context = json!({"destinations": listed, "kinds": kinds});
    Page {
        template: "pages/destinations/list.html",
        title: "Destinations",
        nav: "destinations",
    }
    .show(&app, &visitor, context)
    .await
}

/// Since when a destination fails, what it said, and when it is tried again.
fn failing(line: &store::DestinationLine) -> Value {
    let said = |since| json!({"since": since, "answer": line.failing_answer, "paused_until": line.paused_until});
    line.failing_since.map_or(Value::Null, said)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    kind: String,
    after: String,
}

/// `GET /destinations/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<DestinationId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let (name, context) = shown(&app, id, &asked.after, ("", FieldErrors::default())).await?;
    one(&name).show(&app, &visitor, context).await
}

async fn shown(
    app: &App,
    id: DestinationId,
    after: &str,
    (since, errors): (&str, FieldErrors),
) -> Result<(String, Value)> {
    let mut conn = app.db.acquire().await?;
    let found = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let rules = store::list_rules(&mut conn, id).await?;
    let filter = DeliveryFilter {
        destination: Some(id),
        ..DeliveryFilter::default()
    };
    let page = delivery_lists::list(&mut conn, filter, &request(Some(after))).await?;
    drop(conn);
    let manager_url = app.settings.public.manager_url.trim_end_matches('/');
    let hook = (found.kind == "pagerduty").then(|| format!("{manager_url}/hooks/pagerduty/{id}"));
    let has_own_text = !(found.title_template.is_empty() && found.text_template.is_empty());
    let context = json!({
        "destination": {"id": found.id, "name": found.name, "kind": found.kind, "summary": found.summary, "enabled": found.enabled,
            "updated_at": found.updated_at, "min_severity": found.min_severity, "target": found.target, "takes_all": found.takes_all,
            "tells_changes": found.tells_changes, "digest_minutes": found.digest_minutes, "has_own_text": has_own_text,
            "dead": found.dead, "waiting": found.waiting, "failing": failing(&found), "hook": hook},
        "rules": rules, "form": {"since": since}, "errors": errors,
        "deliveries": page.items.iter().map(delivery_line).collect::<Vec<_>>(),
        "pager": pager(&format!("/destinations/{id}"), &[], "after", page.next.as_deref(), after.is_empty()),
    });
    Ok((found.name, context))
}

/// `GET /destinations/new?kind=`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let kind = kind_of(if asked.kind.is_empty() {
        "email"
    } else {
        &asked.kind
    })?;
    let (typed, none) = (fresh(kind), Map::new());
    let context = context(&app, None, kind, (&typed, &none), &FieldErrors::default()).await?;
    form("New destination").show(&app, &visitor, context).await
}

/// `POST /destinations`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let kind = kind_of(fields.text("kind"))?;
    let typed = draft(kind, &fields);
    match destinations::create(&app, &permit, &typed).await {
        Ok(id) => {
            visitor
                .done(
                    &format!("/destinations/{id}"),
                    "The destination was made. Send a test to see whether it works.",
                )
                .await
        }
        Err(error) => {
            let (errors, none) = (error.into_fields()?, Map::new());
            let context = context(&app, None, kind, (&typed, &none), &errors).await?;
            form("New destination")
                .show_again(&app, &visitor, context)
                .await
        }
    }
}

/// `GET /destinations/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Path(id): Path<DestinationId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let line = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let stored = destinations::open_settings(&app, &mut conn, id).await?;
    drop(conn);
    let kind = kind_of(&line.kind)?;
    let (known, errors) = (Some((id, line.name.as_str())), FieldErrors::default());
    let typed = draft_of(&line, kind, &stored);
    let context = context(&app, known, kind, (&typed, &stored), &errors).await?;
    form(&format!("Edit {}", line.name))
        .show(&app, &visitor, context)
        .await
}

/// `POST /destinations/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    fields: Fields,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let line = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let stored = destinations::open_settings(&app, &mut conn, id).await?;
    drop(conn);
    let kind = kind_of(&line.kind)?;
    let typed = draft(kind, &fields);
    match destinations::update(&app, &permit, id, &typed).await {
        Ok(()) => visitor.done(&format!("/destinations/{id}"), "Saved.").await,
        Err(error) => {
            let (known, errors) = (Some((id, line.name.as_str())), error.into_fields()?);
            let context = context(&app, known, kind, (&typed, &stored), &errors).await?;
            form(&format!("Edit {}", line.name))
                .show_again(&app, &visitor, context)
                .await
        }
    }
}

/// `POST /destinations/{id}/test`
pub(crate) async fn send_test(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
) -> Result<Response> {
    let to = format!("/destinations/{id}");
    match destinations::send_test(&app, &permit, id).await {
        Ok(Ok(answer)) => {
            visitor
                .done(&to, format!("The test was taken: {answer}"))
                .await
        }
        Ok(Err(answer)) => {
            visitor
                .refused(
                    &to,
                    Error::Refused(format!("The test was not taken: {answer}")),
                )
                .await
        }
        Err(error) => visitor.refused(&to, error).await,
    }
}

/// `POST /destinations/preview`: what templates make of a sample, while they are typed.
pub(crate) async fn preview(
    State(app): State<App>,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Json<Value>> {
    Ok(Json(
        match destinations::preview(&app, &permit, &templates(&fields)) {
            Ok(told) => json!({"ok": true, "title": told.title, "text": told.text}),
            Err(error) => json!({"ok": false, "errors": error.into_fields()?}),
        },
    ))
}

/// `POST /destinations/{id}/send-dead-again`
pub(crate) async fn send_dead_again(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
) -> Result<Response> {
    let to = format!("/destinations/{id}");
    match deliveries::send_dead_again(&app, &permit, id).await {
        Ok(sent) => {
            let said = format!("{sent} deliveries are sent again.");
            visitor.done(&to, said).await
        }
        Err(error) => visitor.refused(&to, error).await,
    }
}

/// `POST /destinations/{id}/replay`
pub(crate) async fn replay(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    fields: Fields,
) -> Result<Response> {
    let typed = fields.text("since");
    let done = match read_time(typed) {
        Ok(since) => deliveries::replay(&app, &permit, id, since).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(sent) => {
            let said =
                format!("{sent} alerts are sent again, in the order in which they were recorded.");
            visitor.done(&format!("/destinations/{id}"), said).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let (name, context) = shown(&app, id, "", (typed, errors)).await?;
            one(&name).show_again(&app, &visitor, context).await
        }
    }
}

/// `POST /destinations/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    fields: Fields,
) -> Result<Response> {
    let result = destinations::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/destinations",
            "The destination was deleted.",
            &format!("/destinations/{id}"),
        )
        .await
}
