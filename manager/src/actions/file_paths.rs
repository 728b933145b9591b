//! File paths: what nodes watch.

use ostiary_domain::ids::FilePathId;
use ostiary_store::Conn;
use ostiary_store::file_paths::{self, FilePathRecord, FilePathValues};
use serde::Serialize;
use serde_json::json;

use super::audit::Change;
use super::config_change::{ConfigChange, Saving};
use super::sql_check::{SqlKind, SqlUse};
use super::validate::{Check, lines, one_a_line, taken};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

const TAKEN: &str = "There is already a file path of this category.";

/// What is typed about a file path.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FilePathDraft {
    /// Unique.
    pub category: String,
    /// One a line.
    pub globs: String,
    /// Statements that return more of them in a column `path`, one a line.
    pub queries: String,
    /// One a line.
    pub exclude_globs: String,
    /// Are reads reported, too?
    pub file_accesses: bool,
    /// Tag expression.
    pub target: String,
    /// Is it sent at all?
    pub enabled: bool,
}

impl From<&FilePathRecord> for FilePathDraft {
    fn from(record: &FilePathRecord) -> Self {
        let values = &record.values;
        Self {
            category: values.category.clone(),
            globs: values.globs.join("\n"),
            queries: one_a_line(&values.queries),
            exclude_globs: values.exclude_globs.join("\n"),
            file_accesses: values.file_accesses,
            target: values.target.clone(),
            enabled: values.enabled,
        }
    }
}

async fn validate(app: &App, conn: &mut Conn, draft: &FilePathDraft) -> Result<FilePathValues> {
    let mut check = Check::default();
    let values = FilePathValues {
        category: check.name("category", &draft.category, 100),
        globs: lines(&check.text("globs", &draft.globs, 50_000)),
        queries: lines(&check.text("queries", &draft.queries, 50_000)),
        exclude_globs: lines(&check.text("exclude_globs", &draft.exclude_globs, 50_000)),
        file_accesses: draft.file_accesses,
        target: check.target("target", &draft.target),
        enabled: draft.enabled,
    };
    if values.globs.is_empty() && values.queries.is_empty() {
        check.wrong("globs", "At least one glob or query is needed.");
    }
    let used = SqlUse {
        what: SqlKind::FilePathQuery,
        platform: "",
        target: &values.target,
    };
    for sql in &values.queries {
        check.checked_sql(conn, app, "queries", &used, sql).await;
    }
    check.done()?;
    Ok(values)
}

/// Makes a file path.
///
/// # Errors
/// [`Error::Invalid`], [`Error::Refused`] when a config would become too large.
pub async fn create(
    app: &App,
    permit: &Permit<Edit>,
    draft: &FilePathDraft,
    saving: &Saving,
) -> Result<FilePathId> {
    let id = FilePathId(ostiary_boot::clock::new_id());
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft).await?;
    taken(
        file_paths::insert(&mut tx, id, &values, app.now()).await,
        "file_paths_category_key",
        "category",
        TAKEN,
    )?;
    let (name, after) = (&values.category, Some(json!(values)));
    let change = Change {
        action: "file_paths.create",
        kind: "file_path",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    tx.finish(app, permit, saving, change).await?;
    Ok(id)
}

/// Changes a file path.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::Refused`].
pub async fn update(
    app: &App,
    permit: &Permit<Edit>,
    id: FilePathId,
    draft: &FilePathDraft,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let values = validate(app, &mut tx, draft).await?;
    let before = file_paths::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    taken(
        file_paths::update(&mut tx, id, &values, app.now()).await,
        "file_paths_category_key",
        "category",
        TAKEN,
    )?;
    let (before, after) = (Some(json!(before)), Some(json!(values)));
    let name = &values.category;
    let change = Change {
        action: "file_paths.update",
        kind: "file_path",
        id: id.to_string(),
        name,
        before,
        after,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}

/// Deletes a file path.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] on `confirm`.
pub async fn delete(
    app: &App,
    permit: &Permit<Edit>,
    id: FilePathId,
    confirm: &str,
    saving: &Saving,
) -> Result<()> {
    let mut tx = ConfigChange::begin(app).await?;
    let found = file_paths::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    let name = &found.values.category;
    super::validate::confirmed(confirm, name)?;
    file_paths::delete(&mut tx, id).await?;
    let before = Some(json!(found));
    let change = Change {
        action: "file_paths.delete",
        kind: "file_path",
        id: id.to_string(),
        name,
        before,
        after: None,
    };
    tx.finish(app, permit, saving, change).await.map(drop)
}
