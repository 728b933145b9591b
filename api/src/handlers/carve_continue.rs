//! `POST /carve/continue`: one block of a carve.
//!
//! **Invariant:** any JSON says "stored" to osqueryd here, so it is only said after the commit; the router turns every failure into
//! words (`error::in_words`).

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use ostiary_domain::carve::{BlockRefusal, Refusal};
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::{BlockStored, CarveBlock, CarveRequestError, sanitise};
use ostiary_queue::jobs::CarveReceived;
use ostiary_store::Db;
use ostiary_store::carves::{self, Block, CarveState, PutBlock, SessionHash, SessionOf};
use sha2::{Digest as _, Sha256};

use super::request::{Head, off_thread};
use crate::App;
use crate::body::{self, Bounds, Read};
use crate::error::{Error, Result};
use crate::known_nodes::{admitted, hash_of};

/// What a body holds besides the block: names, ids.
const AROUND: u64 = 4096;

pub(crate) async fn carve_continue(
    State(app): State<App>,
    request: Request,
) -> Result<Json<BlockStored>> {
    if !app.carves.enabled {
        return Err(Refusal::Off.into());
    }
    let (head, body) = Head::admit(&app, request).await?;
    let read = read_block(&app, &head, body).await?;
    let (read, sent) = off_thread(read, |read| SentBlock::read(&read.bytes)).await?;
    drop(read);
    let sent = sent?;
    // osquery from 5.23 on also says who it is: a session that leaked is of no use to another node.
    let node = match head.key().map(str::to_owned) {
        Some(key) if !key.is_empty() => Some(head.authenticate(&app, &key).await?.1.id),
        _ => None,
    };
    app.within_time(store(&app, &sent, node)).await?;
    Ok(Json(BlockStored::default()))
}

async fn read_block(app: &App, head: &Head, body: Body) -> Result<Read> {
    let base64 = app.carves.max_block_bytes.saturating_add(2) / 3 * 4;
    let bound = usize::try_from(base64.saturating_add(AROUND)).unwrap_or(usize::MAX);
    let bounds = Bounds {
        sent: bound,
        inflated: bound,
    };
    let read = body::read(&head.headers, body, bounds, &app.room, false).await?;
    if read.beyond_bounds {
        Err(Error::TooLarge)
    } else {
        Ok(read)
    }
}

/// A block, decoded.
struct SentBlock {
    session: SessionHash,
    number: u64,
    sha256: [u8; 32],
    data: Vec<u8>,
}

impl SentBlock {
    fn read(body: &[u8]) -> std::result::Result<Self, CarveRequestError> {
        let text = sanitise(body).text;
        let block = CarveBlock::parse(&text)?;
        let data = block.decode_data()?;
        Ok(Self {
            session: hash_of(&block.session_id),
            number: block.block_id,
            sha256: Sha256::digest(&data).into(),
            data,
        })
    }
}

async fn store(app: &App, sent: &SentBlock, node: Option<NodeId>) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    let session = carves::find_session(&mut conn, &sent.session)
        .await?
        .ok_or(BlockRefusal::UnknownSession)?;
    drop(conn);
    let from = &session.node;
    // Asked of Postgres for every block: much may have been decided since the carve began.
    if !session.key_in_force {
        return Err(Error::NodeInvalid);
    }
    admitted(from)?;
    if app.live_queries.is_carving_denied(&app.carves, &from.facts) {
        return Err(Refusal::NotThisNode.into());
    }
    if let Some(node) = node.filter(|node| *node != from.id) {
        tracing::warn!(node.id = %node, carve.id = %session.id, "a block for another node's carve");
        return Err(BlockRefusal::ForeignSession.into());
    }
    let shape = session.shape.ok_or(BlockRefusal::Ended)?;
    let length = shape.len_of(sent.number).ok_or(BlockRefusal::NoSuchBlock)?;
    if sent.data.len() != length {
        return Err(BlockRefusal::WrongLength.into());
    }
    let block = Block {
        carve: session.id,
        number: u32::try_from(sent.number).map_err(|_| BlockRefusal::NoSuchBlock)?,
        sha256: sent.sha256,
        data: &sent.data,
    };
    put(app, &session, &block).await
}

async fn put(app: &App, session: &SessionOf, block: &Block<'_>) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let put = match session.state {
        CarveState::Receiving => carves::put_block(&mut tx, block, app.clock.now()).await?,
        // Every byte is here, so a repeated block loses nothing, even when it cannot be compared any more.
        CarveState::Received | CarveState::Stored => {
            match carves::is_same_block(&mut tx, block).await? {
                Some(false) => PutBlock::OtherBytes,
                _ => PutBlock::Repeated,
            }
        }
        CarveState::Expired | CarveState::Failed => PutBlock::NotAwaited,
    };
    match put {
        PutBlock::Stored | PutBlock::Completed => Db::commit(tx).await?,
        PutBlock::Repeated => {}
        PutBlock::OtherBytes => return Err(BlockRefusal::OtherBytes.into()),
        PutBlock::NotAwaited => return Err(BlockRefusal::Ended.into()),
    }
    if put == PutBlock::Completed {
        ring(app, session);
    }
    Ok(())
}

/// Rings on the side: Redis is never waited for, and the sweep finds what it did not hear.
fn ring(app: &App, session: &SessionOf) {
    tracing::info!(node.id = %session.node.id, carve.id = %session.id, "a carve is complete");
    let (queue, job) = (
        app.queue.clone(),
        CarveReceived {
            carve_id: session.id.0,
        },
    );
    tokio::spawn(async move {
        if let Err(error) = queue.ring(&job).await {
            tracing::debug!(%error, "the bell was not heard");
            metrics::counter!("ostiary_bells_lost_total").increment(1);
        }
    });
}
