//! What cannot be stored as it is meant, at `/log` and at `/distributed/write` alike: refused while the fault may be passing or nobody
//! knows whose it is, else set aside. Were it refused for ever, it would come again for ever, and block whatever is behind it.

use std::sync::Arc;

use axum::Json;
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{Accepted, RequestError};
use ostiary_store::node_keys::KnownNode;
use ostiary_store::unreadable::{self, NewUnreadable};
use ostiary_store::{Conn, Db, log_batches};

use super::request::Head;
use crate::App;
use crate::checkins::Caller;
use crate::error::{Error, Result};
use crate::oversized::Stream;

/// Of a body that is too large so much is kept, in bytes.
const BEGINNING: usize = 64 * 1024;

/// A body that has arrived, and is no JSON object or has no usable key.
pub(super) struct Malformed {
    /// Where it came.
    pub(super) stream: Stream,
    /// The key that can be read in it all the same.
    pub(super) key: Option<String>,
    /// It does not look as if it had been cut off.
    pub(super) looks_whole: bool,
    /// As much of it as is kept.
    pub(super) beginning: Vec<u8>,
    /// What is wrong with it.
    pub(super) error: RequestError,
}

/// Sets a malformed body aside if it is known who sends it.
pub(super) async fn malformed(app: &App, head: &Head, body: Malformed) -> Result<Json<Accepted>> {
    let (reason, stream) = (body.error.to_string(), body.stream);
    let data = log_batches::compress(&body.beginning);
    let (caller, node) = sender_of(app, head, body).await?;
    let item = unreadable(app, node.id, stream.name(), &reason, data);
    keep(app, item).await?;
    app.checkins
        .note(&caller, stream.endpoint(), app.clock.now());
    Ok(Json(Accepted::default()))
}

/// Newer clients say in a header who they are; of older ones the key may be found beside what is malformed. That a key is good for
/// nothing is told in any case: else a node whose key was revoked would send this for ever.
async fn sender_of(app: &App, head: &Head, body: Malformed) -> Result<(Caller, Arc<KnownNode>)> {
    let of_header = match head.key() {
        None => None,
        Some(key) => match head.authenticate(app, key).await {
            Ok(found) => return Ok(found),
            Err(error) => Some(error),
        },
    };
    let of_body = body
        .key
        .filter(|key| !key.is_empty() && head.key() != Some(key));
    match (of_body, of_header) {
        (Some(key), _) => {
            let found = head.authenticate(app, &key).await?;
            // What was cut off on the way comes whole the next time.
            body.looks_whole.then_some(found).ok_or(body.error.into())
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(body.error.into()),
    }
}

/// Whose body is too large, once it was refused often enough: before, the fault may be passing.
pub(super) async fn too_large(
    app: &App,
    head: &Head,
    stream: Stream,
    key_of_body: Option<&str>,
) -> Result<(Caller, Arc<KnownNode>)> {
    let key = key_of_body.or(head.key()).ok_or(Error::TooLarge)?;
    let (caller, node) = head.authenticate(app, key).await?;
    let enough = app
        .oversized
        .enough(node.id, stream, app.options.oversized_refusals);
    if enough {
        Ok((caller, node))
    } else {
        Err(Error::TooLarge)
    }
}

/// Keeps the beginning of a body that is too large, unless it is the one that was kept last. The caller commits.
pub(super) async fn keep_beginning(
    app: &App,
    conn: &mut Conn,
    node: NodeId,
    stream: Stream,
    body: &[u8],
) -> Result<()> {
    let beginning = beginning_of(body);
    if app.oversized.is_set_aside(node, stream, beginning) {
        return Ok(());
    }
    let (data, reason) = (
        log_batches::compress(beginning),
        "the body was too large; this is its beginning",
    );
    let item = unreadable(app, node, stream.name(), reason, data);
    Ok(unreadable::insert(conn, &[item]).await?)
}

/// What is too large is taken as far as it goes, and committed: what follows in the stream has its own right to be refused.
pub(super) fn taken(app: &App, caller: &Caller, stream: Stream, body: &[u8]) {
    app.oversized
        .note_set_aside(caller.node, stream, beginning_of(body));
    app.oversized.forget(caller.node, stream);
    app.checkins
        .note(caller, stream.endpoint(), app.clock.now());
}

fn beginning_of(body: &[u8]) -> &[u8] {
    &body[..body.len().min(BEGINNING)]
}

/// What an authenticated node sent and nobody can use; `data` is compressed.
pub(super) fn unreadable(
    app: &App,
    node_id: NodeId,
    log_type: &str,
    reason: &str,
    data: Vec<u8>,
) -> NewUnreadable {
    metrics::counter!("ostiary_unreadable_total").increment(1);
    NewUnreadable {
        id: new_id(),
        node_id,
        batch_id: None,
        log_type: log_type.to_owned().into(),
        received_at: app.clock.now(),
        reason: reason.to_owned(),
        data,
    }
}

/// Keeps it in a transaction of its own.
pub(super) async fn keep(app: &App, item: NewUnreadable) -> Result<()> {
    app.within_time(async {
        let mut tx = app.db.begin().await?;
        unreadable::insert(&mut tx, &[item]).await?;
        Ok(Db::commit(tx).await?)
    })
    .await
}
