//! `POST /distributed/write`: answers to live queries.
//!
//! A result that is refused comes again, merged with all later ones, until osqueryd restarts: so whatever is authenticated and whole
//! is accepted.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{Accepted, DistributedWrite, QueryStats, RequestError, sanitise};
use ostiary_store::Db;
use ostiary_store::live_query_tasks::{self, Answer};
use ostiary_store::log_batches;
use serde_json::json;

use super::log::keep_unreadable;
use super::request::{Head, off_thread};
use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Endpoint;
use crate::error::{Error, Result};
use crate::oversized::Fragments;

pub(crate) async fn distributed_write(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Accepted>> {
    let (head, body) = Head::admit(&app, request).await?;
    let bound = app.options.distributed_write_max_bytes;
    let bounds = Bounds {
        sent: bound,
        inflated: bound,
    };
    let read = body::read(&head.headers, body, bounds, &app.room, true).await?;
    if read.beyond_bounds {
        let (text, end) = (sanitise(&read.bytes).text, sanitise(&read.end).text);
        let body = Fragments {
            head: &text,
            end: &end,
        };
        return too_large(&app, &head, body).await;
    }
    let header_key = head.key().map(str::to_owned);
    let (read, write) = off_thread(read, move |read| {
        Write::prepare(&read.bytes, header_key.as_deref())
    })
    .await?;
    let write = match write {
        Ok(write) => write,
        Err(error) => return not_readable(&app, &head, &read, error).await,
    };
    drop(read);
    let (caller, node) = head.authenticate(&app, &write.node_key).await?;
    app.within_time(store(&app, node.id, &write.answers))
        .await?;
    app.oversized.forget(node.id);
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Of a body that cannot be understood so much is kept, in bytes.
const KEPT: usize = 1 << 20;

/// The body, ready to be stored.
struct Write {
    node_key: String,
    answers: Vec<Answer>,
}

impl Write {
    fn prepare(bytes: &[u8], header_key: Option<&str>) -> std::result::Result<Self, RequestError> {
        let text = sanitise(bytes).text;
        let write = DistributedWrite::parse(&text, header_key)?;
        let answers = write.results.iter().map(|result| Answer {
            wire_id: result.id.clone(),
            succeeded: result.succeeded(),
            status: result
                .status
                .map(|status| i32::try_from(status).unwrap_or(1)),
            message: result.message.clone().into_owned(),
            stats: result.stats.as_ref().map(stats_json),
            row_count: i32::try_from(result.rows.decode().len()).unwrap_or(i32::MAX),
            rows: result.rows.as_json().to_owned(),
        });
        Ok(Self {
            answers: answers.collect(),
            node_key: write.node_key.clone().into_owned(),
        })
    }
}

async fn store(app: &App, node: NodeId, answers: &[Answer]) -> Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    for answer in answers {
        if !live_query_tasks::put_answer(&mut tx, node, answer, app.clock.now()).await? {
            tracing::debug!(node.id = %node, "an answer to a live query that was not asked, or was answered before");
        }
    }
    Db::commit(tx).await?;
    for answer in answers {
        app.live_queries.settle(node, &answer.wire_id);
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
        log_batches::compress(&read.bytes[..read.bytes.len().min(KEPT)]),
    )
    .await?;
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}

async fn too_large(app: &App, head: &Head, body: Fragments<'_>) -> Result<Json<Accepted>> {
    let key = body.node_key().or(head.key()).ok_or(Error::TooLarge)?;
    let (caller, node) = head.authenticate(app, key).await?;
    if !app
        .oversized
        .enough(node.id, app.options.oversized_refusals)
    {
        return Err(Error::TooLarge);
    }
    let beginning = &body.head.as_bytes()[..body.head.len().min(64 * 1024)];
    keep_unreadable(
        app,
        node.id,
        "distributed/write",
        "the body was too large; this is its beginning",
        log_batches::compress(beginning),
    )
    .await?;
    // It would be asked, answered and refused again, and every later answer with it.
    let message = format!(
        "The answer was larger than {} bytes. Ask for fewer rows or columns; its beginning is kept with unreadable data.",
        app.options.distributed_write_max_bytes
    );
    let mut conn = app.db.acquire().await?;
    let (ids, now) = (named_ids(body.head), app.clock.now());
    live_query_tasks::give_up(&mut conn, node.id, &ids, &message, now).await?;
    drop(conn);
    app.oversized.forget(node.id);
    app.checkins
        .note(&caller, Endpoint::DistributedWrite, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// The live queries whose answers a body begins with: ids as we make them, as keys. The rows between may be cut off anywhere.
fn named_ids(head: &str) -> Vec<String> {
    let mut ids: Vec<String> = head
        .split('"')
        .filter(|text| {
            text.strip_prefix("lq-").is_some_and(|rest| {
                rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        })
        .map(ToOwned::to_owned)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
