//! Looking at SQL while it is typed. Nothing is run, stored or logged.

use axum::Json;
use axum::extract::State;
use ostiary_domain::target::Target;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use crate::actions::section_form::SectionForm;
use crate::actions::sql_check::{Brought, SqlKind, SqlUse, look, look_for_nodes};
use crate::actions::validate::words;
use crate::auth::{Permit, RunLiveQuery};
use crate::error::Result;
use crate::state::App;

/// `POST /sql-check` with the fields of a form that holds SQL, and `what`: `live`, `decorator`, the key of a section
/// (whose whole form comes along) or empty for a scheduled query.
pub(crate) async fn check(
    State(app): State<App>,
    _: Permit<RunLiveQuery>,
    fields: Fields,
) -> Result<Json<Value>> {
    let (sql, target) = (fields.text("sql"), fields.text("target"));
    let mut conn = app.db.acquire().await?;
    // A view may read the others of its form.
    let form = SectionForm::read(fields.text("key"), |name| fields.text(name));
    let brought: Vec<(String, Value)> = form
        .map(|form| (form.shape.key.to_owned(), form.as_typed()))
        .into_iter()
        .collect();
    let looked = if fields.text("what") == "live" {
        let nodes: Vec<Uuid> = words(fields.text("node_ids"))
            .iter()
            .filter_map(|id| id.parse().ok())
            .collect();
        let target =
            (!target.trim().is_empty()).then(|| Target::parse(target).unwrap_or(Target::All));
        look_for_nodes(&mut conn, &app, SqlKind::LiveQuery, (target, &nodes), sql).await
    } else {
        let used = SqlUse {
            what: match fields.text("what") {
                "decorator" => SqlKind::Decorator,
                "views" => SqlKind::View,
                "auto_table_construction" => SqlKind::AutoTable,
                _ => SqlKind::Query,
            },
            platform: fields.text("platform"),
            target,
        };
        look(&mut conn, &app, &used, sql, Brought::Values(&brought)).await
    };
    Ok(Json(match looked {
        Ok(looked) => json!({"ok": true, "columns": looked.columns, "warnings": looked.warnings}),
        Err(problem) => {
            json!({"ok": false, "problem": problem.message, "position": problem.position})
        }
    }))
}
