//! What all requests share.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use anyhow::Context as _;
use ostiary_boot::seal;
use ostiary_domain::carve::CarveOptions;
use ostiary_domain::clock::Clock;
use ostiary_domain::target::Target;
use ostiary_queue::Queue;
use ostiary_store::{Db, enrollment};
use tokio_util::task::TaskTracker;

use crate::aliases::Endpoint;
use crate::body::Room;
use crate::certificates::AcceptedChains;
use crate::checkins::Checkins;
use crate::configs::Configs;
use crate::error::{Error, Result};
use crate::handlers::BadSecrets;
use crate::ingest::{Bell, Ingest};
use crate::known_nodes::KnownNodes;
use crate::limits::EnrollLimits;
use crate::live_queries::LiveQueries;
use crate::oversized::Oversized;
use crate::router;
use crate::settings::{Options, Settings};

/// The state of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
#[derive(Debug)]
pub struct Inner {
    pub(crate) options: Options,
    /// Further paths of the endpoints.
    pub(crate) aliases: Vec<(String, Endpoint)>,
    pub(crate) carves: CarveOptions,
    pub(crate) enroll_key: seal::Key,
    pub(crate) db: Db,
    pub(crate) queue: Queue,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) room: Room,
    pub(crate) nodes: KnownNodes,
    pub(crate) configs: Configs,
    pub(crate) live_queries: LiveQueries,
    pub(crate) checkins: Checkins,
    pub(crate) accepted: AcceptedChains,
    pub(crate) ingest: Ingest,
    pub(crate) bell: Bell,
    pub(crate) oversized: Oversized,
    pub(crate) bad_secrets: BadSecrets,
    pub(crate) enroll_limits: EnrollLimits,
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
        let carves = settings.carves;
        Target::parse(&carves.target).context("[carves] target is no tag expression")?;
        let aliases = router::aliases(&options.aliases)?;
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
            carves,
            enroll_key: settings.keys.enroll,
            db,
            queue,
            clock,
            room: Room::new(options.all_bodies_max_bytes),
            nodes: KnownNodes::new(options.node_invalid_per_second, &options.limits),
            configs: Configs::default(),
            live_queries: LiveQueries::default(),
            checkins: Checkins::default(),
            accepted: AcceptedChains::default(),
            ingest,
            bell,
            oversized: Oversized::default(),
            bad_secrets: BadSecrets::default(),
            enroll_limits: EnrollLimits::new(&options.limits),
            aliases,
            options,
        })))
    }

    /// Reads from Postgres what nodes are judged by and sent. [`start`](crate::start) does so by itself; a test that calls the
    /// router may.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn load(&self) -> anyhow::Result<()> {
        let generations = ostiary_store::generations(&mut *self.db.acquire().await?).await?;
        let of_nodes = generations.get("node_keys").copied().unwrap_or(0);
        self.nodes.catch_up(&self.db, of_nodes, true).await?;
        self.learn_secrets().await?;
        self.configs.reload(&self.db).await?;
        self.live_queries.reload(&self.db, self.clock.now()).await?;
        Ok(())
    }

    /// Learns which enroll secrets are good, so that failures of others at the same address do not stand in their way.
    pub(crate) async fn learn_secrets(&self) -> ostiary_store::Result<()> {
        let mut conn = self.db.acquire().await?;
        for hmac in enrollment::list_good_secrets(&mut conn, self.clock.now()).await? {
            self.enroll_limits.learn(hmac, true);
        }
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
