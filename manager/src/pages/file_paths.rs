//! File paths: what nodes watch.

use ostiary_domain::ids::FilePathId;
use ostiary_store::{Conn, file_paths as store};
use serde_json::{Value, json};

use super::Fields;
use super::entries::{Entry, Words};
use crate::actions::config_change::Saving;
use crate::actions::file_paths::{self, FilePathDraft};
use crate::actions::sql_check::{SqlKind, StoredSql};
use crate::actions::validate::lines;
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

/// For [`super::entries::routes`].
pub(crate) struct FilePaths;

impl Entry for FilePaths {
    type Id = FilePathId;
    type Draft = FilePathDraft;

    const WORDS: Words = Words {
        noun: "file path",
        title: "File paths",
        path: "/file-paths",
        nav: "file-paths",
        templates: "pages/file_paths",
        known_as: "file_path",
    };

    fn draft(fields: &Fields) -> FilePathDraft {
        FilePathDraft {
            category: fields.owned("category"),
            globs: fields.owned("globs"),
            queries: fields.owned("queries"),
            exclude_globs: fields.owned("exclude_globs"),
            target: fields.owned("target"),
            file_accesses: fields.is_on("file_accesses"),
            enabled: fields.is_on("enabled"),
        }
    }

    fn fresh(_: &Fields) -> FilePathDraft {
        FilePathDraft {
            enabled: true,
            ..FilePathDraft::default()
        }
    }

    fn statements(draft: &FilePathDraft) -> Vec<StoredSql> {
        let of = |sql: String| StoredSql {
            what: SqlKind::FilePathQuery,
            place: sql.clone(),
            sql,
            platform: String::new(),
            target: draft.target.clone(),
        };
        lines(&draft.queries).into_iter().map(of).collect()
    }

    async fn list(conn: &mut Conn) -> Result<Value> {
        Ok(json!({"file_paths": store::list(conn).await?}))
    }

    async fn find(conn: &mut Conn, id: FilePathId) -> Result<Option<(String, FilePathDraft)>> {
        let found = store::find(conn, id).await?;
        Ok(found.map(|found| (found.values.category.clone(), FilePathDraft::from(&found))))
    }

    async fn create(
        app: &App,
        permit: &Permit<Edit>,
        draft: &FilePathDraft,
        saving: &Saving,
    ) -> Result<()> {
        file_paths::create(app, permit, draft, saving)
            .await
            .map(drop)
    }

    async fn update(
        app: &App,
        permit: &Permit<Edit>,
        id: FilePathId,
        draft: &FilePathDraft,
        saving: &Saving,
    ) -> Result<()> {
        file_paths::update(app, permit, id, draft, saving).await
    }

    async fn delete(
        app: &App,
        permit: &Permit<Edit>,
        id: FilePathId,
        confirm: &str,
        saving: &Saving,
    ) -> Result<()> {
        file_paths::delete(app, permit, id, confirm, saving).await
    }
}
