//! Node keys of another manager, uploaded: what they would do is shown, then it is done.

use axum::extract::{Multipart, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::shell::Page;
use crate::actions::config_import::{Action, Report};
use crate::actions::takeover::{self, KeyFile};
use crate::auth::{Admin, Permit, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: Page<'static> = Page {
    template: "pages/node_keys/form.html",
    title: "Node keys of another manager",
    nav: "enroll",
};

const REPORT: Page<'static> = Page {
    template: "pages/node_keys/report.html",
    title: "What these keys would do",
    nav: "enroll",
};

/// Nodes that the report lists.
const LISTED: usize = 500;

/// `GET /enroll/node-keys`
pub(crate) async fn form(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
) -> Result<Response> {
    FORM.show(&app, &visitor, json!({"errors": FieldErrors::default()}))
        .await
}

/// `POST /enroll/node-keys`
pub(crate) async fn upload(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    mut parts: Multipart,
) -> Result<Response> {
    let mut text = String::new();
    while let Some(part) =
        (parts.next_field().await).map_err(|error| Error::Refused(error.body_text()))?
    {
        let is_file = part.name() == Some("file");
        let bytes = (part.bytes().await).map_err(|error| Error::Refused(error.body_text()))?;
        if is_file {
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    match KeyFile::read(&text) {
        Ok(file) => {
            let id = takeover::keep_keys(&app, &permit, &file).await?;
            Ok(Redirect::to(&format!("/enroll/node-keys/{id}")).into_response())
        }
        Err(error) => {
            let context = json!({"errors": error.into_fields()?});
            FORM.show_again(&app, &visitor, context).await
        }
    }
}

fn context(id: Uuid, report: &Report, errors: &FieldErrors) -> Value {
    let steps: Vec<Value> = (report.steps.iter().take(LISTED))
        .map(|step| {
            let tags = step.fields.iter().find(|change| change.field == "tags").map(|change| change.new.clone());
            json!({"action": step.action, "name": step.name, "tags": tags.unwrap_or_else(|| json!([]))})
        })
        .collect();
    json!({
        "upload": id, "steps": steps, "cut": report.steps.len().saturating_sub(LISTED), "digest": report.digest, "errors": errors,
        "notes": report.notes.iter().take(LISTED).collect::<Vec<_>>(),
        "counts": {"added": report.count(Action::Added), "changed": report.count(Action::Changed), "unchanged": report.unchanged},
    })
}

/// `GET /enroll/node-keys/{upload}`
pub(crate) async fn report(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let report = takeover::report_of_kept_keys(&app, &permit, id).await?;
    REPORT
        .show(
            &app,
            &visitor,
            context(id, &report, &FieldErrors::default()),
        )
        .await
}

/// `POST /enroll/node-keys/{upload}/apply`
pub(crate) async fn apply(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<Uuid>,
    fields: Fields,
) -> Result<Response> {
    match takeover::apply_kept_keys(&app, &permit, id, fields.text("digest")).await {
        Ok(report) => {
            let sentence = format!(
                "Taken over: {} new nodes, {} further keys. Point their name here, then have them send everything again.",
                report.count(Action::Added),
                report.count(Action::Changed)
            );
            visitor.done("/nodes", sentence).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let report = takeover::report_of_kept_keys(&app, &permit, id).await?;
            REPORT
                .show_again(&app, &visitor, context(id, &report, &errors))
                .await
        }
    }
}
