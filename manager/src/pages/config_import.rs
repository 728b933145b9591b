//! Importing files in two steps: what would be done is shown, then it is done. And exporting.

use axum::extract::{Multipart, Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_domain::ids::PackId;
use ostiary_store::tags;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::shell::Page;
use crate::actions::config_change::Saving;
use crate::actions::config_export::{self, ExportDraft, ExportedFile};
use crate::actions::config_import::{self, Action, Import, ImportDraft, Report, UploadedFile};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: Page<'static> = Page {
    template: "pages/packs/import.html",
    title: "Import",
    nav: "packs",
};

const REPORT: Page<'static> = Page {
    template: "pages/packs/import_report.html",
    title: "What the import would do",
    nav: "packs",
};

async fn form_context(app: &App, draft: &ImportDraft, errors: FieldErrors) -> Result<Value> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let text = match draft.files.as_slice() {
        [only] => only.text.as_str(),
        _ => "",
    };
    let form = json!({"text": text, "name": draft.name, "target": draft.target, "replace": draft.replace, "switch_on": draft.switch_on});
    Ok(json!({"form": form, "errors": errors, "all_tags": all_tags}))
}

/// `GET /packs/import`
pub(crate) async fn form(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let context = form_context(&app, &ImportDraft::default(), FieldErrors::default()).await?;
    FORM.show(&app, &visitor, context).await
}

/// `POST /packs/import`: reads the files, and leads to what they would do.
pub(crate) async fn upload(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    parts: Multipart,
) -> Result<Response> {
    let draft = read_upload(parts).await?;
    let import = match Import::read(&draft) {
        Ok(import) => import,
        Err(error) => {
            let context = form_context(&app, &draft, error.into_fields()?).await?;
            return FORM.show_again(&app, &visitor, context).await;
        }
    };
    let id = config_import::keep(&app, &permit, &import).await?;
    Ok(axum::response::Redirect::to(&format!("/packs/import/{id}")).into_response())
}

/// The form of an import; files win over typed text.
async fn read_upload(mut parts: Multipart) -> Result<ImportDraft> {
    let mut draft = ImportDraft::default();
    let mut typed = String::new();
    while let Some(part) =
        (parts.next_field().await).map_err(|error| Error::Refused(error.body_text()))?
    {
        let field = part.name().unwrap_or_default().to_owned();
        let name = part.file_name().unwrap_or_default().to_owned();
        let bytes = (part.bytes().await).map_err(|error| Error::Refused(error.body_text()))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match field.as_str() {
            "file" if !bytes.is_empty() => draft.files.push(UploadedFile { name, text }),
            "text" => typed = text,
            "name" => draft.name = text,
            "target" => draft.target = text,
            "replace" => draft.replace = !text.is_empty(),
            "switch_on" => draft.switch_on = !text.is_empty(),
            _ => {}
        }
    }
    if draft.files.is_empty() && !typed.trim().is_empty() {
        draft.files.push(UploadedFile {
            name: String::new(),
            text: typed,
        });
    }
    Ok(draft)
}

fn report_context(
    id: Uuid,
    (import, report): (&Import, &Report),
    saving: &Saving,
    errors: &FieldErrors,
) -> Value {
    let counts = json!({
        "added": report.count(Action::Added), "changed": report.count(Action::Changed), "removed": report.count(Action::Removed),
        "unchanged": report.unchanged,
    });
    let steps: Vec<Value> = report.steps.iter().map(shown).collect();
    let context = json!({
        "upload": id, "target": import.target, "replace": import.replace, "switch_on": import.switch_on, "steps": steps, "notes": report.notes, "counts": counts,
        "digest": report.digest, "errors": errors,
    });
    saving.kept_in(context)
}

/// Values as people read them.
fn shown(step: &config_import::Step) -> Value {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields: Vec<Value> = (step.fields.iter())
        .map(|change| json!({"field": change.field, "old": text(&change.old), "new": text(&change.new)}))
        .collect();
    json!({"action": step.action, "kind": step.kind, "name": step.name, "fields": fields})
}

/// `GET /packs/import/{upload}`: what it would do now.
pub(crate) async fn report(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let (import, report) = config_import::report_of_kept(&app, &permit, id).await?;
    let context = report_context(
        id,
        (&import, &report),
        &Saving::default(),
        &FieldErrors::default(),
    );
    REPORT.show(&app, &visitor, context).await
}

/// `POST /packs/import/{upload}/apply`
pub(crate) async fn apply(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
    fields: Fields,
) -> Result<Response> {
    let saving = Saving::read(|name| fields.text(name));
    match config_import::apply_kept(&app, &permit, id, fields.text("digest"), &saving).await {
        Ok(report) => {
            let sentence = format!(
                "Imported: {} added, {} changed, {} removed.",
                report.count(Action::Added),
                report.count(Action::Changed),
                report.count(Action::Removed)
            );
            visitor.done("/packs", sentence).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let (import, report) = config_import::report_of_kept(&app, &permit, id).await?;
            let context = report_context(id, (&import, &report), &saving, &errors);
            REPORT.show_again(&app, &visitor, context).await
        }
    }
}

const EXPORT: Page<'static> = Page {
    template: "pages/packs/export.html",
    title: "Export",
    nav: "packs",
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    scope: String,
    target: String,
    node: String,
    /// Filled once something was chosen; an empty target is a choice, too.
    ask: String,
}

/// `GET /config/export`: asks what is wanted, and (`?ask=1`) tells what is in it.
pub(crate) async fn export_form(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let all_tags = tags::names(&mut *app.db.acquire().await?).await?;
    let draft = ExportDraft {
        scope: asked.scope,
        target: asked.target,
        node: asked.node,
    };
    let context = |contents: Value, errors: FieldErrors| json!({"form": draft, "contents": contents, "errors": errors, "all_tags": all_tags});
    if asked.ask.is_empty() {
        let context = context(Value::Null, FieldErrors::default());
        return EXPORT.show(&app, &visitor, context).await;
    }
    match config_export::config(&app, &permit, &draft).await {
        Ok((file, contents)) => {
            let mut shown = json!(contents);
            shown["name"] = file.name.into();
            shown["size"] = file.text.len().into();
            let context = context(shown, FieldErrors::default());
            EXPORT.show(&app, &visitor, context).await
        }
        Err(error) => {
            let context = context(Value::Null, error.into_fields()?);
            EXPORT.show_again(&app, &visitor, context).await
        }
    }
}

/// `GET /config/export/file?scope=&target=&node=`
pub(crate) async fn export(
    State(app): State<App>,
    permit: Permit<View>,
    Query(draft): Query<ExportDraft>,
) -> Result<Response> {
    let (file, _) = config_export::config(&app, &permit, &draft).await?;
    Ok(download(file))
}

/// `GET /packs/{id}/export`
pub(crate) async fn export_pack(
    State(app): State<App>,
    permit: Permit<View>,
    Path(id): Path<PackId>,
) -> Result<Response> {
    Ok(download(config_export::pack(&app, &permit, id).await?))
}

/// As a file to be saved.
pub(crate) fn download(file: ExportedFile) -> Response {
    let disposition = format!("attachment; filename=\"{}\"", file.name);
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, file.text).into_response()
}
