//! Joining the blocks of a carve. The lease of a carve is short and renewed by a timer, so that one whose worker was killed waits
//! seconds only. Whoever loses it stops; what it wrote until then, and says later, counts for nothing.

use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use ostiary_archives::{Listing, list};
use ostiary_blobs::{Blobs, Writer};
use ostiary_boot::clock::new_id;
use ostiary_domain::carve::{ArchiveFormat, Shape};
use ostiary_domain::ids::CarveId;
use ostiary_store::carve_upkeep::{self, Joined, ToJoin};
use ostiary_store::{Db, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listing::{Incoming, joined};
use super::upkeep::note_done;
use crate::App;

/// How long a carve is held without a sign of life.
const LEASE: TimeDelta = TimeDelta::seconds(30);
/// How often it is held anew.
const HOLD_EVERY: Duration = Duration::from_secs(10);
/// Blocks that may wait for being listed; each is in memory.
const AHEAD: usize = 2;

const FIRST_WAIT: TimeDelta = TimeDelta::seconds(5);
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(10);

/// Why a carve was not joined.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Store(#[from] ostiary_store::Error),
    #[error(transparent)]
    Storage(#[from] ostiary_blobs::Error),
    /// Never to be while it is held: blocks are counted in the transactions that store them.
    #[error("block {0} is gone")]
    BlockGone(u32),
    #[error("somebody else has taken it up")]
    LeaseLost,
}

/// Joins every carve that is due; gives how many were.
///
/// # Errors
/// Postgres failed; the carve is taken up again when its lease is over.
pub(crate) async fn join_received(app: &App) -> Result<usize> {
    let mut joined = 0;
    while !app.shutdown.is_cancelled() {
        let now = app.now();
        let mut conn = app.db.acquire().await?;
        let taken = carve_upkeep::take_received(&mut conn, new_id(), now, now + LEASE).await?;
        drop(conn);
        let Some(carve) = taken else { break };
        match join(app, &carve).await {
            Ok(()) => joined += 1,
            Err(JoinError::Store(error)) => return Err(error),
            Err(JoinError::Storage(error)) => put_off(app, &carve, &error).await?,
            Err(error @ JoinError::BlockGone(_)) => fail(app, &carve, &error).await?,
            Err(JoinError::LeaseLost) => {
                tracing::warn!(carve.id = %carve.id, "a carve was taken up by somebody else");
            }
        }
    }
    Ok(joined)
}

/// The storage fails: later, for as long as it takes. The blocks stay in Postgres meanwhile.
async fn put_off(app: &App, carve: &ToJoin, error: &ostiary_blobs::Error) -> Result<()> {
    let doubled = FIRST_WAIT * (1 << carve.attempts.clamp(0, 10));
    let due_at = app.now() + doubled.min(LONGEST_WAIT);
    tracing::warn!(carve.id = %carve.id, %error, %due_at, "a carve cannot be stored yet");
    let mut conn = app.db.acquire().await?;
    let problem = format!("It cannot be stored yet: {error}");
    carve_upkeep::put_off(&mut conn, carve, &problem, due_at).await?;
    Ok(())
}

/// Blocks are gone: because somebody else has joined them, or for good.
async fn fail(app: &App, carve: &ToJoin, error: &JoinError) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let failed = carve_upkeep::fail(&mut tx, carve, &error.to_string(), app.now()).await?;
    if failed {
        note_done(app, &mut tx, carve.id).await?;
    }
    Db::commit(tx).await?;
    if failed {
        tracing::error!(carve.id = %carve.id, %error, "a carve cannot be joined");
    }
    Ok(())
}

/// Holds a carve for as long as this lives. Not a part of joining: a storage may keep a write waiting for longer than a lease.
struct Holder {
    lost: CancellationToken,
    holding: tokio::task::JoinHandle<()>,
}

impl Holder {
    fn of(app: &App, carve: &ToJoin) -> Self {
        let lost = CancellationToken::new();
        let (app, carve, told) = (app.clone(), carve.clone(), lost.clone());
        let holding = tokio::spawn(async move {
            let mut turns = tokio::time::interval(HOLD_EVERY);
            // The first is at once, and the lease is fresh.
            turns.tick().await;
            loop {
                turns.tick().await;
                match hold(&app, &carve).await {
                    Ok(true) => {}
                    Ok(false) => return told.cancel(),
                    // It may go on to be ours: Postgres will tell at the end.
                    Err(error) => tracing::debug!(%error, "a carve could not be held anew"),
                }
            }
        });
        Self { lost, holding }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

async fn hold(app: &App, carve: &ToJoin) -> Result<bool> {
    let mut conn = app.db.acquire().await?;
    carve_upkeep::hold(&mut conn, carve, app.now() + LEASE).await
}

async fn join(app: &App, carve: &ToJoin) -> std::result::Result<(), JoinError> {
    let shape = carve.shape.ok_or(JoinError::BlockGone(0))?;
    let blobs = app.blobs()?;
    let holder = Holder::of(app, carve);
    let mut writer = blobs.write(carve.id.0, new_id()).await?;
    let copied = tokio::select! {
        copied = copy(app, carve, shape, &mut writer) => copied,
        () = holder.lost.cancelled() => Err(JoinError::LeaseLost),
    };
    let joined = match copied {
        Ok(joined) => joined,
        Err(error) => {
            // The first error is the one to tell.
            let _ = writer.abort().await;
            return Err(error);
        }
    };
    writer.finish().await?;
    let mut tx = app.db.begin().await?;
    let ours = carve_upkeep::put_joined(&mut tx, carve, &joined, app.now()).await?;
    if ours {
        note_done(app, &mut tx, carve.id).await?;
    }
    Db::commit(tx).await?;
    if ours {
        tracing::info!(carve.id = %carve.id, bytes = shape.carve_size(), format = joined.format, "a carve is stored");
        metrics::counter!("ostiary_carves_stored_total").increment(1);
    } else {
        clean_up_after_deletion(app, &blobs, carve.id).await?;
    }
    Ok(())
}

/// The carve may have been deleted while it was joined: then nobody knows of its object.
async fn clean_up_after_deletion(
    app: &App,
    blobs: &Blobs,
    id: CarveId,
) -> std::result::Result<(), JoinError> {
    let mut conn = app.db.acquire().await?;
    if !carve_upkeep::exists(&mut conn, id).await? {
        blobs.delete(id.0).await?;
    }
    Ok(())
}

/// Copies the blocks in their order, hashing and listing them on the way.
async fn copy(
    app: &App,
    carve: &ToJoin,
    shape: Shape,
    writer: &mut Writer,
) -> std::result::Result<Joined, JoinError> {
    let mut hash = Sha256::new();
    let mut lister: Option<Lister> = None;
    let mut beginning = Vec::new();
    for number in 0..shape.block_count() {
        let mut conn = app.db.acquire().await?;
        let block = carve_upkeep::read_block(&mut conn, carve.id, number)
            .await?
            .ok_or(JoinError::BlockGone(number))?;
        drop(conn);
        let block = Bytes::from(block);
        hash.update(&block);
        match &mut lister {
            Some(lister) => lister.send(block.clone()).await,
            None => {
                beginning.extend_from_slice(&block);
                if beginning.len() >= ENOUGH_TO_TELL {
                    lister = Some(Lister::start(std::mem::take(&mut beginning), carve).await);
                }
            }
        }
        writer.write(block).await?;
    }
    let lister = match lister {
        Some(lister) => lister,
        None => Lister::start(beginning, carve).await,
    };
    let (format, listing) = lister.end().await;
    Ok(Joined {
        sha256: format!("{:x}", hash.finalize()),
        format: format.as_str(),
        files: listing.files.into_iter().map(joined).collect(),
        file_count: (listing.file_count).map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        problem: listing.problem,
    })
}

/// Bytes by which formats are told apart.
const ENOUGH_TO_TELL: usize = 512;

/// Lists on a thread of its own what is sent to it.
struct Lister {
    format: ArchiveFormat,
    blocks: mpsc::Sender<Bytes>,
    listing: tokio::task::JoinHandle<Listing>,
}

impl Lister {
    async fn start(beginning: Vec<u8>, carve: &ToJoin) -> Self {
        let format = ArchiveFormat::of(&beginning);
        let (blocks, incoming) = mpsc::channel(AHEAD);
        let carve_id = carve.carve_id.clone();
        let listing =
            tokio::task::spawn_blocking(move || list(Incoming::new(incoming), format, &carve_id));
        let mut lister = Self {
            format,
            blocks,
            listing,
        };
        lister.send(Bytes::from(beginning)).await;
        lister
    }

    async fn send(&mut self, block: Bytes) {
        // It hangs up when it has seen enough.
        let _ = self.blocks.send(block).await;
    }

    async fn end(self) -> (ArchiveFormat, Listing) {
        drop(self.blocks);
        let listing = self.listing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an archive could not be listed: a defect of ours");
            Listing {
                problem: "The archive could not be listed.".to_owned(),
                ..Listing::default()
            }
        });
        (self.format, listing)
    }
}
