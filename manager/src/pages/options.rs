//! osquery's options for nodes.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::OptionId;
use ostiary_store::{options as store, tags};
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::options::{self, OptionDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/options/form.html";

fn draft(fields: &Fields) -> OptionDraft {
    OptionDraft {
        name: fields.owned("name"),
        value: fields.owned("value"),
        target: fields.owned("target"),
        priority: fields.owned("priority"),
    }
}

async fn context(
    app: &App,
    known: Option<(OptionId, &str)>,
    form: &OptionDraft,
    errors: FieldErrors,
) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    Ok(
        json!({"option": known, "form": form, "errors": errors, "all_tags": all_tags, "known": options::KNOWN}),
    )
}

/// `GET /options`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let shown: Vec<Value> = found
        .iter()
        .map(|option| {
            json!({"id": option.id, "name": option.values.name, "value": option.values.value.to_string(),
                "target": option.values.target, "priority": option.values.priority})
        })
        .collect();
    let context = json!({"options": shown});
    Page {
        template: "pages/options/list.html",
        title: "Options",
        nav: "options",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /options/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let form = OptionDraft {
        priority: "0".to_owned(),
        ..OptionDraft::default()
    };
    let context = context(&app, None, &form, FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: "New option",
        nav: "options",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /options`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match options::create(&app, &permit, &form, &saving).await {
        Ok(_) => {
            visitor
                .done(
                    "/options",
                    "The option was made. Nodes get it with their next config.",
                )
                .await
        }
        Err(error) => {
            let context = context(&app, None, &form, error.into_fields()?).await?;
            Page {
                template: FORM,
                title: "New option",
                nav: "options",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `GET /options/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<OptionId>,
) -> Result<Response> {
    let found = store::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let name = &found.values.name;
    let context = context(
        &app,
        Some((id, name)),
        &OptionDraft::from(&found),
        FieldErrors::default(),
    )
    .await?;
    Page {
        template: FORM,
        title: &format!("Edit {name}"),
        nav: "options",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /options/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<OptionId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match options::update(&app, &permit, id, &form, &saving).await {
        Ok(()) => {
            visitor
                .done("/options", "Saved. Nodes get it with their next config.")
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
                nav: "options",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `POST /options/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<OptionId>,
    fields: Fields,
) -> Result<Response> {
    let result = options::delete(&app, &permit, id, fields.text("confirm"), &fields.saving()).await;
    visitor
        .answer(
            result,
            "/options",
            "The option was deleted.",
            &format!("/options/{id}/edit"),
        )
        .await
}
