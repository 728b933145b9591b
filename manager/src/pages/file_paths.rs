//! File paths: what nodes watch.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::FilePathId;
use ostiary_store::{file_paths as store, tags};
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::file_paths::{self, FilePathDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/file_paths/form.html";

fn draft(fields: &Fields) -> FilePathDraft {
    FilePathDraft {
        category: fields.owned("category"),
        globs: fields.owned("globs"),
        exclude_globs: fields.owned("exclude_globs"),
        target: fields.owned("target"),
        file_accesses: fields.is_on("file_accesses"),
        enabled: fields.is_on("enabled"),
    }
}

async fn context(
    app: &App,
    known: Option<(FilePathId, &str)>,
    form: &FilePathDraft,
    errors: FieldErrors,
) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let known = known.map(|(id, name)| json!({"id": id, "name": name}));
    Ok(json!({"file_path": known, "form": form, "errors": errors, "all_tags": all_tags}))
}

/// `GET /file-paths`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let context = json!({"file_paths": found});
    Page {
        template: "pages/file_paths/list.html",
        title: "File paths",
        nav: "file-paths",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /file-paths/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let form = FilePathDraft {
        enabled: true,
        ..FilePathDraft::default()
    };
    let context = context(&app, None, &form, FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: "New file path",
        nav: "file-paths",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /file-paths`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match file_paths::create(&app, &permit, &form, &saving).await {
        Ok(_) => {
            visitor
                .done(
                    "/file-paths",
                    "The file path was made. Nodes get it with their next config.",
                )
                .await
        }
        Err(error) => {
            let context = context(&app, None, &form, error.into_fields()?).await?;
            Page {
                template: FORM,
                title: "New file path",
                nav: "file-paths",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `GET /file-paths/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<FilePathId>,
) -> Result<Response> {
    let found = store::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let name = &found.values.category;
    let context = context(
        &app,
        Some((id, name)),
        &FilePathDraft::from(&found),
        FieldErrors::default(),
    )
    .await?;
    Page {
        template: FORM,
        title: &format!("Edit {name}"),
        nav: "file-paths",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /file-paths/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FilePathId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let saving = fields.saving();
    match file_paths::update(&app, &permit, id, &form, &saving).await {
        Ok(()) => {
            visitor
                .done("/file-paths", "Saved. Nodes get it with their next config.")
                .await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let found = store::find(&mut *app.db.acquire().await?, id)
                .await?
                .ok_or(Error::NotFound)?;
            let name = &found.values.category;
            let context = context(&app, Some((id, name)), &form, errors).await?;
            Page {
                template: FORM,
                title: &format!("Edit {name}"),
                nav: "file-paths",
            }
            .show_again(&app, &visitor, saving.kept_in(context))
            .await
        }
    }
}

/// `POST /file-paths/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FilePathId>,
    fields: Fields,
) -> Result<Response> {
    let result =
        file_paths::delete(&app, &permit, id, fields.text("confirm"), &fields.saving()).await;
    visitor
        .answer(
            result,
            "/file-paths",
            "The file path was deleted.",
            &format!("/file-paths/{id}/edit"),
        )
        .await
}
