//! Storing posts: those of many nodes share a commit. Nobody waits for company: whoever comes while a commit is under way is in the
//! next one.
//!
//! **Invariant:** [`Ingest::store`] returns only after the commit.

use std::sync::Arc;
use std::time::Duration;

use ostiary_queue::Queue;
use ostiary_queue::jobs::BatchesStored;
use ostiary_store::log_batches::{self, NewBatch};
use ostiary_store::{Conn, Db};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Commits at once. While one is written to disk the next one is gathered.
const WRITERS: usize = 2;
/// Posts and bytes in one commit.
const MAX_POSTS: usize = 512;
const MAX_BYTES: usize = 8 << 20;

struct Post {
    batch: NewBatch,
    done: oneshot::Sender<Result<()>>,
}

/// The way into the log.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    posts: mpsc::Sender<Post>,
    timeout: Duration,
}

impl Ingest {
    /// Starts the writers. They end when the last clone of the result is gone and everything is written.
    pub(crate) fn start(
        db: &Db,
        bell: &Bell,
        capacity: usize,
        timeout: Duration,
        tasks: &TaskTracker,
    ) -> Self {
        let (posts, waiting) = mpsc::channel(capacity);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..WRITERS {
            tasks.spawn(write_all(
                db.clone(),
                bell.clone(),
                Arc::clone(&waiting),
                timeout,
            ));
        }
        Self { posts, timeout }
    }

    /// Stores a post durably.
    pub(crate) async fn store(&self, batch: NewBatch) -> Result<()> {
        let (done, result) = oneshot::channel();
        self.posts.try_send(Post { batch, done }).map_err(|_| {
            metrics::counter!("ostiary_ingest_busy_total").increment(1);
            Error::Busy
        })?;
        // A post that we no longer wait for may yet be stored: the node sends it again and the worker recognises it.
        match tokio::time::timeout(self.timeout, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable),
        }
    }
}

async fn write_all(
    db: Db,
    bell: Bell,
    waiting: Arc<Mutex<mpsc::Receiver<Post>>>,
    timeout: Duration,
) {
    loop {
        let posts = gather(&mut *waiting.lock().await).await;
        if posts.is_empty() {
            return;
        }
        let (batches, done): (Vec<_>, Vec<_>) = posts
            .into_iter()
            .map(|post| (post.batch, post.done))
            .unzip();
        let started = std::time::Instant::now();
        let results = store_group(&db, &batches, &bell, timeout).await;
        metrics::histogram!("ostiary_ingest_commit_seconds")
            .record(started.elapsed().as_secs_f64());
        metrics::counter!("ostiary_log_batches_stored_total")
            .increment(results.iter().filter(|result| result.is_ok()).count() as u64);
        for (done, result) in done.into_iter().zip(results) {
            // The request may be gone; its post is stored none the less.
            let _ = done.send(result);
        }
    }
}

/// Everything that waits, up to a limit; empty at the end.
async fn gather(waiting: &mut mpsc::Receiver<Post>) -> Vec<Post> {
    let mut posts = Vec::new();
    let mut bytes = 0;
    let Some(first) = waiting.recv().await else {
        return posts;
    };
    bytes += first.batch.data.len();
    posts.push(first);
    while posts.len() < MAX_POSTS && bytes < MAX_BYTES {
        let Ok(post) = waiting.try_recv() else { break };
        // Nobody waits any more: the node will send it again, so why store it twice?
        if post.done.is_closed() {
            continue;
        }
        bytes += post.batch.data.len();
        posts.push(post);
    }
    posts
}

/// Stores a group; when that fails for a reason of one of them, each alone.
async fn store_group(
    db: &Db,
    batches: &[NewBatch],
    bell: &Bell,
    timeout: Duration,
) -> Vec<Result<()>> {
    match store(db, batches, bell, timeout).await {
        Ok(()) => batches.iter().map(|_| Ok(())).collect(),
        Err(Error::Internal) if batches.len() > 1 => {
            let mut results = Vec::with_capacity(batches.len());
            for batch in batches {
                results.push(store(db, std::slice::from_ref(batch), bell, timeout).await);
            }
            results
        }
        Err(error) => {
            let unavailable = matches!(error, Error::Unavailable);
            batches
                .iter()
                .map(|_| {
                    Err(if unavailable {
                        Error::Unavailable
                    } else {
                        Error::Internal
                    })
                })
                .collect()
        }
    }
}

async fn store(db: &Db, batches: &[NewBatch], bell: &Bell, timeout: Duration) -> Result<()> {
    let stored = tokio::time::timeout(timeout, commit(db, batches))
        .await
        .map_err(|_| Error::Unavailable)?;
    bell.ring(stored?);
    Ok(())
}

async fn commit(db: &Db, batches: &[NewBatch]) -> Result<Vec<i64>> {
    let mut tx = db.begin().await?;
    match log_batches::insert(&mut tx, batches).await {
        Ok(ids) => {
            Db::commit(tx).await?;
            Ok(ids)
        }
        Err(ostiary_store::Error::NoPartition(_)) => {
            drop(tx);
            let mut tx = db.begin().await?;
            make_partitions(&mut tx, batches).await?;
            let ids = log_batches::insert(&mut tx, batches).await?;
            Db::commit(tx).await?;
            Ok(ids)
        }
        Err(error) => Err(error.into()),
    }
}

async fn make_partitions(conn: &mut Conn, batches: &[NewBatch]) -> ostiary_store::Result<()> {
    let mut times: Vec<_> = batches.iter().map(|batch| batch.received_at).collect();
    times.sort_unstable();
    times.dedup_by_key(|at| at.date_naive());
    for at in times {
        log_batches::ensure_partition(conn, at).await?;
    }
    Ok(())
}

/// Rings for a worker, on the side: Redis is never waited for, and a bell that is lost is found by the worker's sweep.
#[derive(Debug, Clone)]
pub(crate) struct Bell(mpsc::Sender<i64>);

impl Bell {
    /// Starts the ringer. It ends when the last clone of the result is gone.
    pub(crate) fn start(queue: Queue, tasks: &TaskTracker) -> Self {
        let (ring, mut rung) = mpsc::channel::<i64>(256);
        tasks.spawn(async move {
            while let Some(id) = rung.recv().await {
                if let Err(error) = queue.ring(&BatchesStored::for_pending(id)).await {
                    tracing::debug!(%error, "the bell was not heard");
                    metrics::counter!("ostiary_bells_lost_total").increment(1);
                }
            }
        });
        Self(ring)
    }

    /// Rings once for pending rows that were committed together.
    pub(crate) fn ring(&self, pending: impl IntoIterator<Item = i64>) {
        if let Some(id) = pending.into_iter().next() {
            let _ = self.0.try_send(id);
        }
    }
}
