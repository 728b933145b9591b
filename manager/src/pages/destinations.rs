//! Destinations: does the alarm bell work?

use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::ids::DestinationId;
use ostiary_outputs::destinations::{Input, KINDS, Kind};
use ostiary_store::delivery_lists::{self, DeliveryFilter};
use ostiary_store::destinations as store;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Fields;
use super::findings::delivery_line;
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::destinations::{self, DestinationDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/destinations/form.html";

fn draft(kind: &Kind, fields: &Fields) -> DestinationDraft {
    DestinationDraft {
        name: fields.owned("name"),
        kind: kind.name.to_owned(),
        enabled: fields.is_on("enabled"),
        fields: kind
            .fields
            .iter()
            .filter(|field| fields.iter().any(|(name, _)| name == field.name))
            .map(|field| (field.name.to_owned(), fields.owned(field.name)))
            .collect(),
    }
}

/// The form as typed; secrets come back empty, and `has_…` says that one is stored.
fn form(kind: &Kind, draft: &DestinationDraft, stored: &Map<String, Value>) -> Value {
    let mut form = json!({"name": draft.name, "enabled": draft.enabled});
    for field in kind.fields {
        if field.input == Input::Secret {
            form[format!("has_{}", field.name)] = stored.contains_key(field.name).into();
            form[field.name] = "".into();
        } else {
            form[field.name] = draft
                .fields
                .get(field.name)
                .cloned()
                .unwrap_or_default()
                .into();
        }
    }
    form
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

fn context(
    known: Option<(DestinationId, &str)>,
    kind: &Kind,
    form: &Value,
    errors: &FieldErrors,
) -> Value {
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    json!({"destination": known, "kind": {"name": kind.name, "title": kind.label}, "form": form, "errors": errors})
}

/// What a kind is good for, in a sentence.
fn meaning(kind: &Kind) -> &'static str {
    match kind.name {
        "email" => "Mail to one or more addresses, by your mail server.",
        "webhook" => "A signed HTTP request to a program of yours.",
        _ => "",
    }
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
                "rules": each.rules, "last": last})
        })
        .collect();
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|kind| json!({"name": kind.name, "title": kind.label, "meaning": meaning(kind)}))
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
    let mut conn = app.db.acquire().await?;
    let found = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let rules = store::list_rules(&mut conn, id).await?;
    let filter = DeliveryFilter {
        destination: Some(id),
        finding: None,
    };
    let page = delivery_lists::list(&mut conn, filter, &request(Some(&asked.after))).await?;
    drop(conn);
    let context = json!({
        "destination": {"id": found.id, "name": found.name, "kind": found.kind, "summary": found.summary, "enabled": found.enabled,
            "updated_at": found.updated_at},
        "rules": rules,
        "deliveries": page.items.iter().map(delivery_line).collect::<Vec<_>>(),
        "pager": pager(&format!("/destinations/{id}"), &[], "after", page.next.as_deref(), asked.after.is_empty()),
    });
    Page {
        template: "pages/destinations/show.html",
        title: &found.name,
        nav: "destinations",
    }
    .show(&app, &visitor, context)
    .await
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
    let mut empty = DestinationDraft {
        enabled: true,
        ..DestinationDraft::default()
    };
    for field in kind.fields {
        if let Input::Choice([first, ..]) = field.input {
            empty
                .fields
                .insert(field.name.to_owned(), (*first).to_owned());
        }
    }
    let context = context(
        None,
        kind,
        &form(kind, &empty, &Map::new()),
        &FieldErrors::default(),
    );
    Page {
        template: FORM,
        title: "New destination",
        nav: "destinations",
    }
    .show(&app, &visitor, context)
    .await
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
            let context = context(
                None,
                kind,
                &form(kind, &typed, &Map::new()),
                &error.into_fields()?,
            );
            Page {
                template: FORM,
                title: "New destination",
                nav: "destinations",
            }
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
    let shown = form(kind, &draft_of(&line, kind, &stored), &stored);
    let context = context(
        Some((id, &line.name)),
        kind,
        &shown,
        &FieldErrors::default(),
    );
    Page {
        template: FORM,
        title: &format!("Edit {}", line.name),
        nav: "destinations",
    }
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
            let context = context(
                Some((id, &line.name)),
                kind,
                &form(kind, &typed, &stored),
                &error.into_fields()?,
            );
            let title = format!("Edit {}", line.name);
            Page {
                template: FORM,
                title: &title,
                nav: "destinations",
            }
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
