//! What all requests share.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use ostiary_boot::seal;
use ostiary_domain::clock::Clock;
use ostiary_queue::Queue;
use ostiary_store::Db;
use tokio_util::task::TaskTracker;

use crate::body::Room;
use crate::checkins::Checkins;
use crate::configs::Configs;
use crate::error::{Error, Result};
use crate::handlers::BadSecrets;
use crate::ingest::{Bell, Ingest};
use crate::known_nodes::KnownNodes;
use crate::live_queries::LiveQueries;
use crate::oversized::Oversized;
use crate::settings::{Options, Settings};

/// The state of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
#[derive(Debug)]
pub struct Inner {
    pub(crate) options: Options,
    pub(crate) enroll_key: seal::Key,
    pub(crate) db: Db,
    pub(crate) queue: Queue,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) room: Room,
    pub(crate) nodes: KnownNodes,
    pub(crate) configs: Configs,
    pub(crate) live_queries: LiveQueries,
    pub(crate) checkins: Checkins,
    pub(crate) ingest: Ingest,
    pub(crate) bell: Bell,
    pub(crate) oversized: Oversized,
    pub(crate) bad_secrets: BadSecrets,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Prepares everything; neither Postgres nor Redis need to be there. Background work goes on `tasks`, and ends when the last
    /// clone is gone.
    ///
    /// # Errors
    /// The settings cannot be meant.
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let options = settings.api;
        let db = Db::prepare(&settings.database, "ostiary-api")?;
        let queue = Queue::connect(&settings.redis)?;
        let bell = Bell::start(queue.clone(), tasks);
        let ingest = Ingest::start(
            &db,
            &bell,
            options.ingest_queue,
            options.answer_timeout(),
            tasks,
        );
        Ok(Self(Arc::new(Inner {
            enroll_key: settings.keys.enroll,
            db,
            queue,
            clock,
            room: Room::new(options.all_bodies_max_bytes),
            nodes: KnownNodes::new(options.node_invalid_per_second),
            configs: Configs::default(),
            live_queries: LiveQueries::default(),
            checkins: Checkins::default(),
            ingest,
            bell,
            oversized: Oversized::default(),
            bad_secrets: BadSecrets::default(),
            options,
        })))
    }

    /// Reads from Postgres what nodes are judged by and sent. [`start`](crate::start) does so by itself; a test that calls the
    /// router may.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn load(&self) -> anyhow::Result<()> {
        self.nodes.reload(&self.db).await?;
        self.configs.reload(&self.db).await?;
        self.live_queries.reload(&self.db, self.clock.now()).await?;
        Ok(())
    }

    /// Writes the check-ins noted so far.
    ///
    /// # Errors
    /// Postgres failed; they stay noted.
    pub async fn flush_checkins(&self) -> anyhow::Result<()> {
        let flushed = self.checkins.flush(&self.db, self.clock.now());
        Ok(tokio::time::timeout(self.options.answer_timeout() * 2, flushed).await??)
    }

    /// Bounds work that leans on Postgres: when it hangs, the node hears of it while it still listens.
    pub(crate) async fn within_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.options.answer_timeout(), work)
            .await
            .unwrap_or(Err(Error::Unavailable))
    }
}
