//! Pages of errors.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::shell::Page;
use crate::auth::Visitor;
use crate::error::{Error, Result};
use crate::state::App;

/// The page of a status; a status without one of its own gets the nearest.
pub(crate) async fn page(
    app: &App,
    visitor: Option<&Visitor>,
    status: StatusCode,
    sentence: Option<String>,
) -> Result<Response> {
    let visitor = visitor.ok_or_else(|| Error::Internal(anyhow::anyhow!("no session")))?;
    let (template, title) = match status {
        StatusCode::FORBIDDEN => ("errors/403.html", "Not allowed"),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ("errors/404.html", "Not found"),
        StatusCode::TOO_MANY_REQUESTS => ("errors/429.html", "Too many attempts"),
        StatusCode::SERVICE_UNAVAILABLE => ("errors/500.html", "Not available"),
        other if other.is_client_error() => ("errors/403.html", "Not possible"),
        _ => ("errors/500.html", "Something went wrong"),
    };
    let context = json!({"message": sentence, "request_id": null, "retry_after": null});
    Page {
        template,
        title,
        nav: "",
    }
    .show_with(status, app, visitor, context)
    .await
}

/// Any page that does not exist.
pub(crate) async fn not_found() -> Error {
    Error::NotFound
}
