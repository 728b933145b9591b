//! The own account.

use axum::extract::State;
use axum::response::Response;
use ostiary_store::sessions;
use serde_json::json;

use super::Fields;
use super::shell::Page;
use crate::actions::account;
use crate::auth::{Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const PAGE: Page<'static> = Page {
    template: "pages/account/show.html",
    title: "Your account",
    nav: "account",
};

async fn context(
    app: &App,
    permit: &Permit<View>,
    errors: FieldErrors,
) -> Result<serde_json::Value> {
    let user = permit.actor().user_id.ok_or(Error::Unauthenticated)?;
    let sessions = sessions::count_of_user(&mut *app.db.acquire().await?, user, app.now()).await?;
    Ok(json!({"form": {}, "errors": errors, "sessions": sessions}))
}

/// `GET /account`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
) -> Result<Response> {
    PAGE.show(
        &app,
        &visitor,
        context(&app, &permit, FieldErrors::default()).await?,
    )
    .await
}

/// `POST /account/password`
pub(crate) async fn change_password(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
    fields: Fields,
) -> Result<Response> {
    let (current, new) = (fields.text("current_password"), fields.text("new_password"));
    match account::change_password(&app, &permit, &visitor, current, new).await {
        Ok(()) => {
            visitor
                .done(
                    "/account",
                    "Your password was changed. All your other sessions have ended.",
                )
                .await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            PAGE.show_again(&app, &visitor, context(&app, &permit, errors).await?)
                .await
        }
    }
}
