//! `POST /log`: result and status logs.
//!
//! **Invariant:** we answer without `error` only when the post is durably stored; osqueryd then forgets it.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{Accepted, LogEnvelope, LogType, RequestError, sanitise};
use ostiary_store::log_batches::{self, NewBatch, Unreadable};
use ostiary_store::{Db, nodes};

use super::request::Head;
use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Endpoint;
use crate::error::{Error, Result};
use crate::oversized;

/// Stores one post of a node. Lines are decoded by the worker, not here.
pub(crate) async fn log(State(app): State<App>, request: Request) -> Result<Json<Accepted>> {
    let (head, body) = Head::of(&app, request);
    let bounds = Bounds {
        sent: app.options.log_max_sent_bytes,
        inflated: app.options.log_max_bytes,
    };
    let read = body::read(&head.headers, body, bounds, &app.room, true).await?;
    let text = sanitise(&read.bytes).text;
    if read.beyond_bounds {
        return too_large(&app, &head, &text).await;
    }
    let envelope = match LogEnvelope::split(&text, head.key()) {
        Ok(envelope) => envelope,
        Err(error) => return not_readable(&app, &head, &read, error).await,
    };
    let (caller, node) = head.authenticate(&app, &envelope.node_key).await?;
    match (envelope.kind(), envelope.data) {
        (LogType::Result, Some(data)) => store(&app, &head, node.id, b'r', data).await?,
        (LogType::Status, Some(data)) => store(&app, &head, node.id, b's', data).await?,
        (kind, data) => {
            let reason = if kind == LogType::Unknown {
                "unknown log type"
            } else {
                "the post has no data"
            };
            let bytes = data.map_or(read.bytes.as_slice(), str::as_bytes);
            keep_unreadable(&app, node.id, &envelope.log_type, reason, bytes).await?;
        }
    }
    app.oversized.forget(node.id);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

async fn store(app: &App, head: &Head, node_id: NodeId, log_type: u8, data: &str) -> Result<()> {
    let batch = NewBatch {
        node_id,
        log_type,
        received_at: app.clock.now(),
        client_version: head.client_version.clone(),
        data: log_batches::compress(data.as_bytes()),
    };
    app.ingest.store(batch).await
}

/// Keeps what an authenticated node sent and nobody can use. Were it refused, it would come again for ever.
pub(super) async fn keep_unreadable(
    app: &App,
    node_id: NodeId,
    log_type: &str,
    reason: &str,
    data: &[u8],
) -> Result<()> {
    metrics::counter!("ostiary_unreadable_total").increment(1);
    let data = log_batches::compress(data);
    let log_type: String = log_type.chars().take(100).collect();
    app.within_time(async {
        let mut conn = app.db.acquire().await?;
        let (id, received_at) = (new_id(), app.clock.now());
        let unreadable = Unreadable {
            id,
            node_id,
            log_type: &log_type,
            received_at,
            reason,
            data: &data,
        };
        Ok(log_batches::insert_unreadable(&mut conn, &unreadable).await?)
    })
    .await
}

/// The body is whole, but no JSON object, or has no usable key. Newer clients say in a header who they are.
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
    keep_unreadable(app, node.id, "log", &error.to_string(), &read.bytes).await?;
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Refused a few times, for the fault may be passing; then taken as far as it goes, for the node would send it for ever.
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
    match oversized::whole_lines(text) {
        Some((log_type, lines, count)) => {
            store(app, head, node.id, log_type.as_bytes()[0], &lines).await?;
            tracing::warn!(node.id = %node.id, lines = count, "a post was too large: its first lines are stored, the rest is lost");
        }
        None => {
            let beginning = &text.as_bytes()[..text.len().min(64 * 1024)];
            keep_unreadable(
                app,
                node.id,
                "log",
                "the post was too large; this is its beginning",
                beginning,
            )
            .await?;
        }
    }
    // How many lines the rest had is not known: it was not kept. One says "at least".
    app.within_time(async {
        let mut tx = app.db.begin().await?;
        nodes::add_lines_lost(&mut tx, node.id, 1).await?;
        Ok(Db::commit(tx).await?)
    })
    .await?;
    app.oversized.forget(node.id);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}
