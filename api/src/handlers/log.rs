//! `POST /log`: result and status logs.
//!
//! **Invariant:** we answer without `error` only when the post is durably stored; osqueryd then forgets it.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{Accepted, LogHead, LogType};
use ostiary_store::log_batches::{self, NewBatch};
use ostiary_store::unreadable::{self, NewUnreadable};
use ostiary_store::{Db, nodes};

use super::request::Head;
use crate::App;
use crate::body::Bounds;
use crate::checkins::Endpoint;
use crate::error::{Error, Result};
use crate::log_body::LogBody;

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
    match unusable(said) {
        None => store(&app, &head, node.id, post.kind(), post.data).await?,
        Some(reason) => {
            let log_type: String = said.log_type.chars().take(100).collect();
            let data = match said.data {
                Some(_) => post.data,
                None => log_batches::compress(post.beginning(usize::MAX)),
            };
            keep_unreadable(&app, node.id, &log_type, reason, data).await?;
        }
    }
    if post.lost > 0 {
        lose(&app, node.id, post.lost).await?;
    }
    app.oversized.forget(node.id);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Why no worker can do anything with a post.
fn unusable(said: &LogHead) -> Option<&'static str> {
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
        log_type: match kind {
            LogType::Result => b'r',
            LogType::Status => b's',
            LogType::Unknown => b'x',
        },
        received_at: app.clock.now(),
        client_version: head.client_version.clone(),
        data,
    };
    app.ingest.store(batch).await
}

/// Keeps what an authenticated node sent and nobody can use; `data` is compressed. Were it refused, it would come again for ever.
pub(super) async fn keep_unreadable(
    app: &App,
    node_id: NodeId,
    log_type: &str,
    reason: &str,
    data: Vec<u8>,
) -> Result<()> {
    metrics::counter!("ostiary_unreadable_total").increment(1);
    app.within_time(async {
        let mut conn = app.db.acquire().await?;
        let (id, received_at) = (new_id(), app.clock.now());
        let unreadable = NewUnreadable {
            id,
            node_id,
            batch_id: None,
            log_type: log_type.to_owned().into(),
            received_at,
            reason: reason.to_owned(),
            data,
        };
        Ok(unreadable::insert(&mut conn, &[unreadable]).await?)
    })
    .await
}

/// The body is whole, but no JSON object, or has no usable key. Newer clients say in a header who they are; of older ones the key may
/// be found beside the data, where some line is malformed beyond telling where it ends.
async fn not_readable(app: &App, head: &Head, post: LogBody) -> Result<Json<Accepted>> {
    let Some(key) = head
        .key()
        .map(str::to_owned)
        .or_else(|| post.key_of_malformed())
    else {
        return Err(refusal(post));
    };
    let Ok((caller, node)) = head.authenticate(app, &key).await else {
        return Err(refusal(post));
    };
    let data = log_batches::compress(post.beginning(usize::MAX));
    let reason = refusal(post).to_string();
    keep_unreadable(app, node.id, "log", &reason, data).await?;
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

fn refusal(post: LogBody) -> Error {
    post.head.err().map_or(Error::Internal, Error::from)
}

/// Refused a few times, for the fault may be passing; then taken as far as it goes, for the node would send it for ever.
async fn too_large(app: &App, head: &Head, post: LogBody) -> Result<Json<Accepted>> {
    let said = post.head.as_ref().ok().map(|said| said.node_key.clone());
    let key = said
        .or_else(|| post.key_in_fragments())
        .or_else(|| head.key().map(str::to_owned))
        .ok_or(Error::TooLarge)?;
    let (caller, node) = head.authenticate(app, &key).await?;
    if !app
        .oversized
        .enough(node.id, app.options.oversized_refusals)
    {
        return Err(Error::TooLarge);
    }
    // How many lines there were in all is known only if the body was read to its end; one says "at least".
    let lost = post.lost.max(1);
    match post.kind() {
        kind @ (LogType::Result | LogType::Status) if post.lines > 0 => {
            tracing::warn!(node.id = %node.id, lines = post.lines, lost, "a post was too large: its first lines are stored, the rest is lost");
            store(app, head, node.id, kind, post.data).await?;
        }
        _ => {
            keep_unreadable(
                app,
                node.id,
                "log",
                "the post was too large; this is its beginning",
                log_batches::compress(post.beginning(64 * 1024)),
            )
            .await?;
        }
    }
    lose(app, node.id, lost).await?;
    app.oversized.forget(node.id);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Counts lines that a node believes delivered and nobody has.
async fn lose(app: &App, node_id: NodeId, lines: u64) -> Result<()> {
    app.within_time(async {
        let mut tx = app.db.begin().await?;
        let lines = i64::try_from(lines).unwrap_or(i64::MAX);
        nodes::add_lines_lost(&mut tx, node_id, lines).await?;
        Ok(Db::commit(tx).await?)
    })
    .await
}
