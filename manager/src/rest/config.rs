//! Configs in and out. An import without `digest` is a dry run; with the digest of its report it is applied as shown.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::PackId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Asked;
use crate::actions::config_change::Saving;
use crate::actions::config_export::{self, ExportDraft};
use crate::actions::config_import::{self, Import, ImportDraft};
use crate::auth::{Edit, Permit, View};
use crate::error::Result;
use crate::pages::config_import::download;
use crate::state::App;

/// Largest body of an import: what is read of files, with room for its quotation.
pub(crate) const MAX_BYTES: usize = 20 * 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    #[serde(flatten)]
    draft: ImportDraftOnly,
    /// Of the report that was shown.
    digest: Option<String>,
    /// `once` or `stages`.
    saving: String,
    /// The dangers that were confirmed, and the word that was typed.
    cut_off: String,
    cut_off_typed: String,
}

/// As [`ImportDraft`], which knows no other members.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ImportDraftOnly {
    files: Vec<config_import::UploadedFile>,
    name: String,
    target: String,
    replace: bool,
    switch_on: bool,
}

/// `POST /api/v1/config/import`
pub(crate) async fn import(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let draft = ImportDraft {
        files: wanted.draft.files,
        name: wanted.draft.name,
        target: wanted.draft.target,
        replace: wanted.draft.replace,
        switch_on: wanted.draft.switch_on,
    };
    let import = Import::read(&draft)?;
    let Some(digest) = wanted.digest else {
        let report = config_import::dry_run(&app, &permit, &import).await?;
        return Ok(Json(json!({"applied": false, "report": report})));
    };
    let saving = Saving {
        how: wanted.saving,
        preview: false,
        confirmed: wanted.cut_off,
        typed: wanted.cut_off_typed,
    };
    let report = config_import::apply(&app, &permit, &import, &digest, &saving).await?;
    Ok(Json(json!({"applied": true, "report": report})))
}

/// `GET /api/v1/config/export?scope=&target=&node=`
pub(crate) async fn export(
    State(app): State<App>,
    permit: Permit<View>,
    Asked(wanted): Asked<ExportDraft>,
) -> Result<Response> {
    let (file, _) = config_export::config(&app, &permit, &wanted).await?;
    Ok(download(file))
}

/// `GET /api/v1/packs/{id}/export`
pub(crate) async fn export_pack(
    State(app): State<App>,
    permit: Permit<View>,
    Path(id): Path<PackId>,
) -> Result<Response> {
    Ok(download(config_export::pack(&app, &permit, id).await?))
}
