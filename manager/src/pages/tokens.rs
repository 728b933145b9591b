//! API tokens.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_store::api_tokens as store;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::shell::Page;
use crate::actions::api_tokens::{self, TokenDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{FieldErrors, Result};
use crate::state::App;

const PAGE: Page<'static> = Page {
    template: "pages/tokens/list.html",
    title: "API tokens",
    nav: "tokens",
};

/// An admin sees everybody's tokens, others their own.
async fn context(
    app: &App,
    permit: &Permit<View>,
    form: &TokenDraft,
    errors: FieldErrors,
    created: Option<Value>,
) -> Result<Value> {
    let own = permit.actor().user_id;
    let of = if Permit::<Admin>::for_actor(permit.actor()).is_ok() {
        None
    } else {
        own
    };
    let found = store::list(&mut *app.db.acquire().await?, of).await?;
    let tokens: Vec<Value> = found
        .iter()
        .map(|token| {
            json!({"id": token.id, "name": token.name, "user_name": token.user_name, "created_at": token.created_at,
                "expires_at": token.expires_at, "last_used_at": token.last_used_at, "revoked_at": token.revoked_at,
                "mine": own.is_some_and(|own| own.0 == token.user_id)})
        })
        .collect();
    Ok(json!({"tokens": tokens, "form": form, "errors": errors, "created": created}))
}

/// `GET /tokens`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
) -> Result<Response> {
    PAGE.show(
        &app,
        &visitor,
        context(
            &app,
            &permit,
            &TokenDraft::default(),
            FieldErrors::default(),
            None,
        )
        .await?,
    )
    .await
}

/// `POST /tokens`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
    fields: Fields,
) -> Result<Response> {
    let form = TokenDraft {
        name: fields.owned("name"),
        expires_days: fields.owned("expires_days"),
    };
    match api_tokens::create(&app, &permit, &form).await {
        Ok(token) => {
            let created = Some(json!({"name": form.name.trim(), "token": token}));
            PAGE.show(
                &app,
                &visitor,
                context(
                    &app,
                    &permit,
                    &TokenDraft::default(),
                    FieldErrors::default(),
                    created,
                )
                .await?,
            )
            .await
        }
        Err(error) => {
            PAGE.show_again(
                &app,
                &visitor,
                context(&app, &permit, &form, error.into_fields()?, None).await?,
            )
            .await
        }
    }
}

/// `POST /tokens/{id}/revoke`
pub(crate) async fn revoke(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    api_tokens::revoke(&app, &permit, id).await?;
    visitor.done("/tokens", "Revoked.").await
}
