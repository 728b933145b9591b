//! Live queries: asking nodes now.

use chrono::TimeDelta;
use ostiary_domain::ids::LiveQueryId;
use ostiary_store::live_queries::{self, NewLiveQuery};
use ostiary_store::{Db, node_lists};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::audit::{Change, record};
use super::sql_check::{SqlKind, SqlUse};
use super::validate::{Check, words};
use crate::auth::{Permit, RunLiveQuery};
use crate::error::{Error, Result};
use crate::state::App;

/// What is typed about a live query.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LiveQueryDraft {
    /// SQL.
    pub sql: String,
    /// What it is for.
    pub description: String,
    /// Tag expression; `*` for every node, empty for the named nodes only.
    pub target: String,
    /// Ids with commas between.
    pub node_ids: String,
    /// Minutes until it is not handed out any more.
    pub expires_minutes: String,
}

/// Asks nodes, from their next poll on.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn create(
    app: &App,
    permit: &Permit<RunLiveQuery>,
    draft: &LiveQueryDraft,
) -> Result<LiveQueryId> {
    let mut check = Check::default();
    let sql = check.sql("sql", &draft.sql);
    let description = check.line("description", &draft.description, 500);
    let target = check.target("target", &draft.target);
    let named: Vec<Uuid> = words(&draft.node_ids)
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let minutes = check.number("expires_minutes", &draft.expires_minutes, 1, 7 * 24 * 60);
    let mut tx = app.db.begin().await?;
    let nodes: Vec<Uuid> = node_lists::names(&mut tx, &named)
        .await?
        .into_iter()
        .map(|node| node.id)
        .collect();
    if target.is_empty() && nodes.is_empty() {
        check.wrong(
            "target",
            "Say which nodes: a tag expression, or * for every node.",
        );
    }
    let used = SqlUse {
        what: SqlKind::LiveQuery,
        platform: "",
        target: &target,
    };
    check.checked_sql(&mut tx, app, "sql", &used, &sql).await;
    check.done()?;
    let id = LiveQueryId(ostiary_boot::clock::new_id());
    let (wire_id, now) = (format!("lq-{}", id.0.simple()), app.now());
    let new = NewLiveQuery {
        id,
        wire_id: &wire_id,
        sql: &sql,
        description: &description,
        target: &target,
        target_all: target == "*",
        node_ids: &nodes,
        created_by: permit.actor().user_id,
        expires_at: now + TimeDelta::minutes(minutes),
    };
    live_queries::insert(&mut tx, &new, now).await?;
    let after = Some(
        json!({"sql": sql, "target": target, "node_ids": nodes, "expires_at": new.expires_at}),
    );
    let name = &description;
    let change = Change {
        action: "live_queries.create",
        kind: "live_query",
        id: id.to_string(),
        name,
        after,
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(id)
}

/// Stops a live query; what was answered stays.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn cancel(app: &App, permit: &Permit<RunLiveQuery>, id: LiveQueryId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let query = live_queries::find(&mut tx, id)
        .await?
        .ok_or(Error::NotFound)?;
    if live_queries::cancel(&mut tx, id, app.now()).await? {
        let name = &query.description;
        let change = Change {
            action: "live_queries.cancel",
            kind: "live_query",
            id: id.to_string(),
            name,
            ..Change::default()
        };
        record(app, &mut tx, permit, change).await?;
    }
    Ok(Db::commit(tx).await?)
}
