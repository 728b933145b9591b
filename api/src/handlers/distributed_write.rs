//! `POST /distributed/write`: answers to live queries.
//!
//! A result that is refused comes again, merged with all later ones, until osqueryd restarts: so whatever is authenticated and whole
//! is accepted.

use axum::Json;
use axum::extract::{Request, State};
use ostiary_domain::ids::NodeId;
use ostiary_domain::live_query::is_wire_id;
use ostiary_domain::osquery::endpoint::Endpoint;
use ostiary_domain::osquery::{Accepted, DistributedWrite, QueryStats, RequestError, sanitise};
use ostiary_store::Db;
use ostiary_store::live_query_tasks::{self, Answer};
use serde_json::json;

use super::request::{Head, off_thread};
use super::unusable::{self, Malformed};
use crate::App;
use crate::body::{self, Bounds, END, Read};
use crate::error::Result;
use crate::fragments::Fragments;
use crate::oversized::Stream;

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
        return too_large(&app, &head, read).await;
    }
    let header_key = head.key().map(str::to_owned);
    let (read, write) = off_thread(read, move |read| {
        Write::prepare(&read.bytes, header_key.as_deref())
    })
    .await?;
    let write = match write {
        Ok(write) => write,
        // A log: it belongs elsewhere, and is refused until it comes there.
        Err(error @ RequestError::ForAnother(_)) => return Err(error.into()),
        Err(error) => return not_readable(&app, &head, &read, error).await,
    };
    drop(read);
    let (caller, node) = head.authenticate(&app, &write.node_key).await?;
    app.within_time(store(&app, node.id, &write.answers))
        .await?;
    app.oversized.forget(node.id, Stream::DistributedWrite);
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
            row_count: i32::try_from(result.rows.count()).unwrap_or(i32::MAX),
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
    let end = &read.bytes[read.bytes.len().saturating_sub(END)..];
    let (beginning, end) = (
        String::from_utf8_lossy(&read.bytes[..read.bytes.len().min(END)]),
        String::from_utf8_lossy(end),
    );
    let behind = Fragments {
        head: "",
        end: &end,
    };
    let anywhere = Fragments {
        head: &beginning,
        end: &end,
    };
    let body = Malformed {
        stream: Stream::DistributedWrite,
        key: anywhere.node_key().map(str::to_owned),
        // What stands behind the answers, is behind all of them.
        looks_whole: behind.node_key().is_some(),
        beginning: read.bytes[..read.bytes.len().min(KEPT)].to_vec(),
        error,
    };
    unusable::malformed(app, head, body).await
}

/// What can be told of a body that is too large.
struct InPart {
    key: Option<String>,
    ids: Vec<String>,
}

impl InPart {
    fn of(read: &Read) -> Self {
        let (head, end) = (sanitise(&read.bytes).text, sanitise(&read.end).text);
        let fragments = Fragments {
            head: &head,
            end: &end,
        };
        Self {
            key: fragments.node_key().map(str::to_owned),
            ids: named_ids(&[&head, &end]),
        }
    }
}

async fn too_large(app: &App, head: &Head, read: Read) -> Result<Json<Accepted>> {
    let stream = Stream::DistributedWrite;
    let (read, in_part) = off_thread(read, InPart::of).await?;
    let (caller, node) = unusable::too_large(app, head, stream, in_part.key.as_deref()).await?;
    // It would be asked, answered and refused again, and every later answer with it.
    let message = format!(
        "The answer was larger than {} bytes. Ask for fewer rows or columns; its beginning is kept with unreadable data.",
        app.options.distributed_write_max_bytes
    );
    app.within_time(async {
        let (mut tx, now) = (app.db.begin().await?, app.clock.now());
        unusable::keep_beginning(app, &mut tx, node.id, stream, &read.bytes).await?;
        live_query_tasks::give_up(&mut tx, node.id, &in_part.ids, &message, now).await?;
        Ok(Db::commit(tx).await?)
    })
    .await?;
    unusable::taken(app, &caller, stream, &read.bytes);
    Ok(Json(Accepted::default()))
}

/// The live queries that a body answers, as far as it was kept: ids as we make them, as keys. The rows between may be cut off anywhere,
/// but behind them `statuses`, `messages` and `stats` name the ids again. One that is named nowhere is offered again, as often as any.
fn named_ids(parts: &[&str]) -> Vec<String> {
    let mut ids: Vec<String> = parts
        .iter()
        .flat_map(|part| part.split('"'))
        .filter(|text| is_wire_id(text))
        .map(ToOwned::to_owned)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
