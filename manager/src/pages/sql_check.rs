//! Looking at SQL while it is typed. Nothing is run, stored or logged.

use axum::Json;
use axum::extract::State;
use ostiary_domain::target::Target;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use crate::actions::sql_check::{SqlKind, SqlUse, look, look_for_nodes};
use crate::actions::validate::words;
use crate::auth::{Permit, RunLiveQuery};
use crate::error::Result;
use crate::state::App;

/// `POST /sql-check` with the fields of a form that holds SQL, and `what`: `live` or empty.
pub(crate) async fn check(
    State(app): State<App>,
    _: Permit<RunLiveQuery>,
    fields: Fields,
) -> Result<Json<Value>> {
    let (sql, target) = (fields.text("sql"), fields.text("target"));
    let mut conn = app.db.acquire().await?;
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
            what: SqlKind::Query,
            platform: fields.text("platform"),
            target,
        };
        look(&mut conn, &app, &used, sql).await
    };
    Ok(Json(match looked {
        Ok(looked) => json!({"ok": true, "columns": looked.columns, "warnings": looked.warnings}),
        Err(problem) => {
            json!({"ok": false, "problem": problem.message, "position": problem.position})
        }
    }))
}
