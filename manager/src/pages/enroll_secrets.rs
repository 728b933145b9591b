//! One enroll secret: on what terms it is taken, and who could not come again without it. And who could not say by a header who it is.

use axum::extract::{Path, State};
use axum::response::Response;
use chrono::TimeDelta;
use ostiary_domain::ids::EnrollSecretId;
use ostiary_store::enroll_secrets::{self as store, SecretLine};
use ostiary_store::node_versions;
use serde_json::{Value, json};

use super::Fields;
use super::enroll::{APPROVALS, state};
use super::shell::Page;
use crate::actions::enroll_secrets::{self, SecretDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

/// Nodes that are listed by name; the others are counted.
const MOST: i64 = 100;

fn draft_of(secret: &SecretLine, app: &App) -> SecretDraft {
    let text = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let days_left = secret.expires_at.map(|at| {
        // Rounded up: saving the form as it is shortens nothing.
        (at - app.now() + TimeDelta::hours(23)).num_days().max(0)
    });
    SecretDraft {
        expires_days: text(days_left),
        use_limit: text(secret.use_limit.map(i64::from)),
        approval: secret.approval.clone(),
        ..SecretDraft::default()
    }
}

async fn context(
    app: &App,
    id: EnrollSecretId,
    form: Option<&SecretDraft>,
    errors: FieldErrors,
) -> Result<(String, Value)> {
    let mut conn = app.db.acquire().await?;
    let secret = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let nodes = store::list_dependent_nodes(&mut conn, id, MOST).await?;
    drop(conn);
    let stored = draft_of(&secret, app);
    let mut shown = json!(secret);
    shown["state"] = state(&secret, app.now()).into();
    let context = json!({
        "secret": shown, "form": form.unwrap_or(&stored), "errors": errors, "approvals": APPROVALS,
        "without_key": nodes.iter().filter(|node| node.keys == 0).count(), "nodes": nodes,
    });
    Ok((secret.name, context))
}

/// `GET /enroll/secrets/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<EnrollSecretId>,
) -> Result<Response> {
    let (name, context) = context(&app, id, None, FieldErrors::default()).await?;
    page(&name).show(&app, &visitor, context).await
}

fn page(name: &str) -> Page<'_> {
    Page {
        template: "pages/enroll/secret.html",
        title: name,
        nav: "enroll",
    }
}

/// `POST /enroll/secrets/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<EnrollSecretId>,
    fields: Fields,
) -> Result<Response> {
    let form = SecretDraft {
        expires_days: fields.owned("expires_days"),
        use_limit: fields.owned("use_limit"),
        approval: fields.owned("approval"),
        ..SecretDraft::default()
    };
    match enroll_secrets::update(&app, &permit, id, &form).await {
        Ok(()) => {
            visitor
                .done(&format!("/enroll/secrets/{id}"), "Saved.")
                .await
        }
        Err(error) => {
            let (name, context) = context(&app, id, Some(&form), error.into_fields()?).await?;
            page(&name).show_again(&app, &visitor, context).await
        }
    }
}

/// `GET /enroll/key-header`: who would be shut out if the header were demanded.
pub(crate) async fn key_header(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let nodes = node_versions::list_without_header(&mut *app.db.acquire().await?).await?;
    let shown: Vec<_> = nodes
        .iter()
        .take(usize::try_from(MOST).unwrap_or(usize::MAX))
        .collect();
    Page {
        template: "pages/enroll/key_header.html",
        title: "Key by header",
        nav: "enroll",
    }
    .show(
        &app,
        &visitor,
        json!({"nodes": shown, "total": nodes.len()}),
    )
    .await
}
