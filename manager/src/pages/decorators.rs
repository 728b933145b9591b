//! Decorators: columns on every line of a node.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::DecoratorId;
use ostiary_store::{decorators as store, tags};
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::decorators::{self, DecoratorDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/decorators/form.html";

fn draft(fields: &Fields) -> DecoratorDraft {
    DecoratorDraft {
        name: fields.owned("name"),
        moment: fields.owned("moment"),
        interval_seconds: fields.owned("interval_seconds"),
        sql: fields.owned("sql"),
        target: fields.owned("target"),
        enabled: fields.is_on("enabled"),
    }
}

async fn context(
    app: &App,
    known: Option<(DecoratorId, &str)>,
    form: &DecoratorDraft,
    errors: FieldErrors,
) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    Ok(json!({"decorator": known, "form": form, "errors": errors, "all_tags": all_tags}))
}

/// `GET /decorators`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let context = json!({"decorators": found});
    Page {
        template: "pages/decorators/list.html",
        title: "Decorators",
        nav: "decorators",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /decorators/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let form = DecoratorDraft {
        moment: "load".to_owned(),
        enabled: true,
        ..DecoratorDraft::default()
    };
    let context = context(&app, None, &form, FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: "New decorator",
        nav: "decorators",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /decorators`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match decorators::create(&app, &permit, &form, &saving).await {
        Ok(_) => {
            visitor
                .done(
                    "/decorators",
                    "The decorator was made. Nodes get it with their next config.",
                )
                .await
        }
        Err(error) => {
            let context = context(&app, None, &form, error.into_fields()?).await?;
            Page {
                template: FORM,
                title: "New decorator",
                nav: "decorators",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `GET /decorators/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<DecoratorId>,
) -> Result<Response> {
    let found = store::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let name = &found.values.name;
    let context = context(
        &app,
        Some((id, name)),
        &DecoratorDraft::from(&found),
        FieldErrors::default(),
    )
    .await?;
    Page {
        template: FORM,
        title: &format!("Edit {name}"),
        nav: "decorators",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /decorators/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<DecoratorId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match decorators::update(&app, &permit, id, &form, &saving).await {
        Ok(()) => {
            visitor
                .done("/decorators", "Saved. Nodes get it with their next config.")
                .await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let found = store::find(&mut *app.db.acquire().await?, id)
                .await?
                .ok_or(Error::NotFound)?;
            let name = &found.values.name;
            let context = context(&app, Some((id, name)), &form, errors).await?;
            Page {
                template: FORM,
                title: &format!("Edit {name}"),
                nav: "decorators",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `POST /decorators/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<DecoratorId>,
    fields: Fields,
) -> Result<Response> {
    let result =
        decorators::delete(&app, &permit, id, fields.text("confirm"), &fields.saving()).await;
    visitor
        .answer(
            result,
            "/decorators",
            "The decorator was deleted.",
            &format!("/decorators/{id}/edit"),
        )
        .await
}
