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

use super::request::{Head, off_thread};
use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Endpoint;
use crate::error::{Error, Result};
use crate::oversized::{self, Fragments};

/// Stores one post of a node. Lines are decoded by the worker, not here.
pub(crate) async fn log(State(app): State<App>, request: Request) -> Result<Json<Accepted>> {
    let (head, body) = Head::of(&app, request);
    let bounds = Bounds {
        sent: app.options.log_max_sent_bytes,
        inflated: app.options.log_max_bytes,
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
    let (read, post) = off_thread(read, move |read| {
        Post::prepare(&read.bytes, header_key.as_deref())
    })
    .await?;
    let post = match post {
        Ok(post) => post,
        Err(error) => return not_readable(&app, &head, &read, error).await,
    };
    drop(read);
    let (caller, node) = head.authenticate(&app, &post.node_key).await?;
    match post.unusable() {
        None => store(&app, &head, node.id, post.kind, post.data).await?,
        Some(reason) => keep_unreadable(&app, node.id, &post.log_type, reason, post.data).await?,
    }
    app.oversized.forget(node.id);
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// A post, split and compressed.
struct Post {
    node_key: String,
    log_type: String,
    kind: LogType,
    has_data: bool,
    /// The JSON of `data`; all of the post when it has none.
    data: Vec<u8>,
}

impl Post {
    fn prepare(bytes: &[u8], header_key: Option<&str>) -> std::result::Result<Self, RequestError> {
        let text = sanitise(bytes).text;
        let envelope = LogEnvelope::split(&text, header_key)?;
        Ok(Self {
            node_key: envelope.node_key.clone().into_owned(),
            log_type: envelope.log_type.chars().take(100).collect(),
            kind: envelope.kind(),
            has_data: envelope.data.is_some(),
            data: log_batches::compress(envelope.data.unwrap_or(&text).as_bytes()),
        })
    }

    /// Why no worker can do anything with it.
    fn unusable(&self) -> Option<&'static str> {
        match self.kind {
            LogType::Unknown => Some("unknown log type"),
            _ if !self.has_data => Some("the post has no data"),
            LogType::Result | LogType::Status => None,
        }
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
        let unreadable = Unreadable {
            id,
            node_id,
            log_type,
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
    keep_unreadable(
        app,
        node.id,
        "log",
        &error.to_string(),
        log_batches::compress(&read.bytes),
    )
    .await?;
    app.checkins.note(&caller, Endpoint::Log, app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Refused a few times, for the fault may be passing; then taken as far as it goes, for the node would send it for ever.
async fn too_large(app: &App, head: &Head, body: Fragments<'_>) -> Result<Json<Accepted>> {
    let key = body.node_key().or(head.key()).ok_or(Error::TooLarge)?;
    let (caller, node) = head.authenticate(app, key).await?;
    if !app
        .oversized
        .enough(node.id, app.options.oversized_refusals)
    {
        return Err(Error::TooLarge);
    }
    match oversized::whole_lines(body) {
        Some((log_type, lines, count)) => {
            store(
                app,
                head,
                node.id,
                log_type,
                log_batches::compress(lines.as_bytes()),
            )
            .await?;
            tracing::warn!(node.id = %node.id, lines = count, "a post was too large: its first lines are stored, the rest is lost");
        }
        None => {
            let beginning = &body.head.as_bytes()[..body.head.len().min(64 * 1024)];
            keep_unreadable(
                app,
                node.id,
                "log",
                "the post was too large; this is its beginning",
                log_batches::compress(beginning),
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
