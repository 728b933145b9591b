//! Signing in and out.

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::json;

use super::Fields;
use super::shell::Page;
use crate::actions::sign_in;
use crate::auth::Visitor;
use crate::error::{FieldErrors, Result};
use crate::state::App;

const PAGE: Page<'static> = Page {
    template: "pages/sign_in/form.html",
    title: "Sign in",
    nav: "",
};

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    next: String,
}

/// `GET /sign-in`
pub(crate) async fn form(
    State(app): State<App>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    if visitor.actor.is_some() {
        return Ok(Redirect::to(local(&asked.next)).into_response());
    }
    PAGE.show(
        &app,
        &visitor,
        json!({"form": {"name": "", "next": asked.next}, "errors": FieldErrors::default()}),
    )
    .await
}

/// `POST /sign-in`
pub(crate) async fn submit(
    State(app): State<App>,
    visitor: Visitor,
    fields: Fields,
) -> Result<Response> {
    let next = fields.text("next");
    match sign_in::sign_in(&app, &visitor, fields.text("name"), fields.text("password")).await {
        Ok(()) => Ok(Redirect::to(local(next)).into_response()),
        Err(error) => {
            let errors = error.into_fields()?;
            let context =
                json!({"form": {"name": fields.text("name"), "next": next}, "errors": errors});
            PAGE.show_again(&app, &visitor, context).await
        }
    }
}

/// `POST /sign-out`
pub(crate) async fn sign_out(State(app): State<App>, visitor: Visitor) -> Result<Response> {
    sign_in::sign_out(&app, &visitor).await?;
    Ok(Redirect::to("/sign-in").into_response())
}

/// Only paths of our own: browsers read `//host` and `/\host` as another site.
fn local(next: &str) -> &str {
    let inside = next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && !next.chars().any(char::is_control);
    if inside && !next.starts_with("/sign-in") {
        next
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        assert_eq!(local("/nodes?q=a"), "/nodes?q=a");
        for odd in [
            "",
            "nodes",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "/sign-in?next=/",
        ] {
            assert_eq!(local(odd), "/", "{odd}");
        }
    }
}
