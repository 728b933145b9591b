//! Users: who may do what?

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::UserId;
use ostiary_store::users as store;
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::users::{self, UserDraft};
use crate::auth::{Admin, Permit, Role, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/users/form.html";

fn draft(fields: &Fields) -> UserDraft {
    UserDraft {
        name: fields.owned("name"),
        email: fields.owned("email"),
        role: fields.owned("role"),
    }
}

fn roles() -> Vec<Value> {
    Role::ALL
        .iter()
        .map(|(role, meaning)| json!({"name": role.as_str(), "meaning": meaning}))
        .collect()
}

/// `GET /users`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
) -> Result<Response> {
    let users = store::list(&mut *app.db.acquire().await?).await?;
    Page {
        template: "pages/users/list.html",
        title: "Users",
        nav: "users",
    }
    .show(&app, &visitor, json!({"users": users}))
    .await
}

fn new_context(form: &UserDraft, errors: &FieldErrors) -> Value {
    json!({"edited": null, "form": {"name": form.name, "email": form.email, "role": form.role, "password": ""}, "errors": errors,
        "roles": roles()})
}

/// `GET /users/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
) -> Result<Response> {
    let form = UserDraft {
        role: Role::Viewer.as_str().to_owned(),
        ..UserDraft::default()
    };
    let context = new_context(&form, &FieldErrors::default());
    Page {
        template: FORM,
        title: "New user",
        nav: "users",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /users`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match users::create(&app, &permit, &form, fields.text("password")).await {
        Ok(_) => {
            visitor
                .done("/users", format!("{} was made.", form.name.trim()))
                .await
        }
        Err(error) => {
            let context = new_context(&form, &error.into_fields()?);
            Page {
                template: FORM,
                title: "New user",
                nav: "users",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

async fn edit_context(
    app: &App,
    visitor: &Visitor,
    id: UserId,
    form: Option<UserDraft>,
    errors: FieldErrors,
) -> Result<(String, Value)> {
    let user = store::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let is_self = visitor.actor()?.user_id == Some(id);
    let form = form.unwrap_or_else(|| UserDraft {
        name: user.name.clone(),
        email: user.email.clone().unwrap_or_default(),
        role: user.role.clone(),
    });
    let edited = json!({"id": user.id, "name": user.name, "disabled": user.disabled_at.is_some(), "self": is_self});
    Ok((
        format!("Edit {}", user.name),
        json!({"edited": edited, "form": form, "errors": errors, "roles": roles()}),
    ))
}

/// `GET /users/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Path(id): Path<UserId>,
) -> Result<Response> {
    let (title, context) = edit_context(&app, &visitor, id, None, FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: &title,
        nav: "users",
    }
    .show(&app, &visitor, context)
    .await
}

/// The form again, with what was wrong.
async fn again(
    app: &App,
    visitor: &Visitor,
    id: UserId,
    form: Option<UserDraft>,
    error: Error,
) -> Result<Response> {
    let (title, context) = edit_context(app, visitor, id, form, error.into_fields()?).await?;
    Page {
        template: FORM,
        title: &title,
        nav: "users",
    }
    .show_again(app, visitor, context)
    .await
}

/// `POST /users/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<UserId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match users::update(&app, &permit, id, &form).await {
        Ok(()) => visitor.done("/users", "Saved.").await,
        Err(error) => again(&app, &visitor, id, Some(form), error).await,
    }
}

/// `POST /users/{id}/password`
pub(crate) async fn set_password(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<UserId>,
    fields: Fields,
) -> Result<Response> {
    match users::set_password(&app, &permit, id, fields.text("new_password")).await {
        Ok(()) => {
            visitor
                .done(
                    "/users",
                    "The password was set, and all sessions of the user have ended.",
                )
                .await
        }
        Err(error) => again(&app, &visitor, id, None, error).await,
    }
}

/// `POST /users/{id}/disable`
pub(crate) async fn disable(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<UserId>,
) -> Result<Response> {
    let result = users::set_disabled(&app, &permit, id, true).await;
    visitor
        .answer(
            result,
            "/users",
            "The user is barred and signed out.",
            &format!("/users/{id}/edit"),
        )
        .await
}

/// `POST /users/{id}/enable`
pub(crate) async fn enable(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<UserId>,
) -> Result<Response> {
    let result = users::set_disabled(&app, &permit, id, false).await;
    visitor
        .answer(
            result,
            "/users",
            "The user may sign in again.",
            &format!("/users/{id}/edit"),
        )
        .await
}

/// `POST /users/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<UserId>,
    fields: Fields,
) -> Result<Response> {
    let result = users::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/users",
            "The user was deleted.",
            &format!("/users/{id}/edit"),
        )
        .await
}
