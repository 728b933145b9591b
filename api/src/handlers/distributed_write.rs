//! `POST /distributed/write`: answers to live queries.
//!
//! A result that is refused comes again, merged with all later ones, until osqueryd restarts: so whatever is authenticated and whole
//! is accepted.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{
    Accepted, DistributedWrite, QueryResult, QueryStats, RequestError, sanitise,
};
use ostiary_store::Db;
use ostiary_store::live_query_tasks::{self, Answer};
use serde_json::json;

use super::log::keep_unreadable;
use super::request::Head;
use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Endpoint;
use crate::error::{Error, Result};
use crate::oversized;

pub(crate) async fn distributed_write(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Accepted>> {
    let (head, body) = Head::of(&app, request);
    let bound = app.options.distributed_write_max_bytes;
    let read = body::read(
        &head.headers,
        body,
        Bounds {
            sent: bound,
            inflated: bound,
        },
        &app.room,
        true,
    )
    .await?;
    let text = sanitise(&read.bytes).text;
    if read.beyond_bounds {
        return too_large(&app, &head, &text).await;
    }
    let write = match DistributedWrite::parse(&text, head.key()) {
        Ok(write) => write,
        Err(error) => return not_readable(&app, &head, &read, error).await,
    };
    let (caller, node) = head.authenticate(&app, &write.node_key).await?;
    app.within_time(store(&app, node.id, &write.results))
        .await?;
    app.oversized.forget(node.id);
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}

async fn store(app: &App, node: NodeId, results: &[QueryResult<'_>]) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    for result in results {
        let answer = Answer {
            wire_id: &result.id,
            succeeded: result.succeeded(),
            status: result
                .status
                .map(|status| i32::try_from(status).unwrap_or(1)),
            message: &result.message,
            stats: result.stats.as_ref().map(stats_json),
            row_count: i32::try_from(result.rows.decode().len()).unwrap_or(i32::MAX),
            rows: result.rows.as_json(),
        };
        if !live_query_tasks::put_answer(&mut tx, node, &answer, app.clock.now()).await? {
            tracing::debug!(node.id = %node, "an answer to a live query that was not asked, or was answered before");
        }
    }
    Db::commit(tx).await?;
    for result in results {
        app.live_queries.settle(node, &result.id);
    }
    Ok(())
}

fn stats_json(stats: &QueryStats) -> serde_json::Value {
    json!({
        "wall_time_ms": stats.wall_time_ms,
        "user_time_ms": stats.user_time_ms,
        "system_time_ms": stats.system_time_ms,
        "memory_bytes": stats.memory_bytes,
    })
}

async fn not_readable(
    app: &App,
    head: &Head,
    read: &Read,
    error: RequestError,
) -> Result<Json<Accepted>> {
    let Some(key) = head.key() else {
        return Err(error.into());
    };
    let Ok((caller, node)) = head.authenticate(app, key).await else {
        return Err(error.into());
    };
    keep_unreadable(
        app,
        node.id,
        "distributed/write",
        &error.to_string(),
        &read.bytes,
    )
    .await?;
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}

async fn too_large(app: &App, head: &Head, text: &str) -> Result<Json<Accepted>> {
    let key = head
        .key()
        .or_else(|| oversized::key_in_head(text))
        .ok_or(Error::TooLarge)?;
    let (caller, node) = head.authenticate(app, key).await?;
    if !app
        .oversized
        .enough(node.id, app.options.oversized_refusals)
    {
        return Err(Error::TooLarge);
    }
    let beginning = &text.as_bytes()[..text.len().min(64 * 1024)];
    keep_unreadable(
        app,
        node.id,
        "distributed/write",
        "the body was too large; this is its beginning",
        beginning,
    )
    .await?;
    app.oversized.forget(node.id);
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}
