//! `POST /log`: result and status logs.
//!
//! **Invariant:** we answer without `error` only when the post is durably stored; osqueryd then forgets it.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::endpoint::Endpoint;
use ostiary_domain::osquery::{Accepted, LogHead, LogType};
use ostiary_store::log_batches::{self, NewBatch};
use ostiary_store::{Db, nodes};

use super::request::Head;
use super::unusable::{self, Malformed};
use crate::App;
use crate::body::Bounds;
use crate::error::{Error, Result};
use crate::log_body::LogBody;
use crate::oversized::Stream;

/// Stores one post of a node. Lines are decoded by the worker, not here.
pub(crate) async fn log(State(app): State<App>, request: Request) -> Result<Json<Accepted>> {
    let (head, body) = Head::admit(&app, request).await?;
    let bounds = Bounds {
        sent: app.options.log_max_sent_bytes,
        inflated: app.options.log_max_bytes,
    };
    let post = LogBody::read(&head.headers, body, bounds, &app.room, head.key()).await?;
    if post.beyond_bounds {
        return too_large(&app, &head, post).await;
    }
    let Ok(said) = &post.head else {
        return not_readable(&app, &head, post).await;
    };
    let (caller, node) = head.authenticate(&app, &said.node_key).await?;
    let stream = Stream::Log(post.kind());
    match why_unusable(said) {
        None => store(&app, &head, node.id, post.kind(), post.data).await?,
        Some(reason) => {
            let log_type: String = said.log_type.chars().take(100).collect();
            let data = match said.data {
                Some(_) => post.data,
                None => log_batches::compress(post.beginning(usize::MAX)),
            };
            let item = unusable::unreadable(&app, node.id, &log_type, reason, data);
            unusable::keep(&app, item).await?;
        }
    }
    if post.lost > 0 {
        lose(&app, node.id, post.lost).await?;
    }
    app.oversized.forget(node.id, stream);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Why no worker can do anything with a post.
fn why_unusable(said: &LogHead) -> Option<&'static str> {
    match LogType::parse(&said.log_type) {
        LogType::Unknown => Some("unknown log type"),
        _ if said.data.is_none() => Some("the post has no data"),
        LogType::Result | LogType::Status => None,
    }
}

async fn store(
    app: &App,
    head: &Head,
    node_id: NodeId,
    kind: LogType,
    data: Vec<u8>,
) -> Result<()> {
    let batch = NewBatch {
        node_id,
        log_type: kind.letter(),
        received_at: app.clock.now(),
        client_version: head.client_version.clone(),
        data,
    };
    app.ingest.store(batch).await
}

async fn not_readable(app: &App, head: &Head, post: LogBody) -> Result<Json<Accepted>> {
    let body = Malformed {
        stream: Stream::Log(LogType::Unknown),
        key: post.key_in_fragments(),
        looks_whole: post.looks_whole(),
        beginning: post.beginning(usize::MAX).to_vec(),
        error: post.head.err().ok_or(Error::Internal)?,
    };
    unusable::malformed(app, head, body).await
}

/// Refused a few times, for the fault may be passing; then taken as far as it goes, for the node would send it for ever.
async fn too_large(app: &App, head: &Head, post: LogBody) -> Result<Json<Accepted>> {
    let said = post.head.as_ref().ok().map(|said| said.node_key.clone());
    let key = said.or_else(|| post.key_in_fragments());
    let stream = Stream::Log(post.kind());
    let (caller, node) = unusable::too_large(app, head, stream, key.as_deref()).await?;
    // How many lines there were in all is known only if the body was read to its end; one says "at least".
    let lost = post.lost.max(1);
    let beginning = post.beginning(usize::MAX).to_vec();
    let is_stored = post.lines > 0 && post.kind() != LogType::Unknown;
    if is_stored {
        tracing::warn!(node.id = %node.id, lines = post.lines, lost, "a post was too large: its first lines are stored, the rest is lost");
        store(app, head, node.id, post.kind(), post.data).await?;
    }
    app.within_time(async {
        let mut tx = app.db.begin().await?;
        if !is_stored {
            unusable::keep_beginning(app, &mut tx, node.id, stream, &beginning).await?;
        }
        let lost = i64::try_from(lost).unwrap_or(i64::MAX);
        nodes::add_lines_lost(&mut tx, node.id, lost, app.clock.now()).await?;
        Ok(Db::commit(tx).await?)
    })
    .await?;
    unusable::taken(app, &caller, stream, &beginning);
    Ok(Json(Accepted::default()))
}

/// Counts lines that a node believes delivered and nobody has.
async fn lose(app: &App, node_id: NodeId, lines: u64) -> Result<()> {
    app.within_time(async {
        let mut tx = app.db.begin().await?;
        let lines = i64::try_from(lines).unwrap_or(i64::MAX);
        nodes::add_lines_lost(&mut tx, node_id, lines, app.clock.now()).await?;
        Ok(Db::commit(tx).await?)
    })
    .await
}
