//! What all jobs share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use ostiary_blobs::Blobs;
use ostiary_domain::clock::Clock;
use ostiary_outputs::Outbound;
use ostiary_queue::Queue;
use ostiary_store::Db;
use tokio_util::sync::CancellationToken;

use crate::knowledge::Knowledge;
use crate::settings::Settings;
use crate::suspects::Suspects;

/// The shared state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// Postgres.
    pub db: Db,
    /// Redis.
    pub queue: Queue,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Cancelled when the process is to stop: nothing new is begun then.
    pub shutdown: CancellationToken,
    /// The way out, for alerts.
    pub outbound: Outbound,
    blobs: Arc<OnceLock<Blobs>>,
    pub(crate) knowledge: Arc<Knowledge>,
    pub(crate) names: Arc<QueryNames>,
    pub(crate) suspects: Arc<Suspects>,
}

impl App {
    /// Prepares everything; neither Postgres nor Redis is contacted.
    ///
    /// # Errors
    /// The settings cannot be meant.
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let blobs = Arc::new(OnceLock::new());
        if settings.carves.enabled {
            let opened = Blobs::open(&settings.blobs).context("[blobs] cannot be used")?;
            blobs.get_or_init(|| opened);
        }
        Ok(Self {
            blobs,
            db: Db::prepare(&settings.database, "ostiary-worker")?,
            queue: Queue::connect(&settings.redis)?,
            outbound: Outbound::new(settings.outputs.clone())?,
            clock,
            settings: Arc::new(settings),
            shutdown,
            knowledge: Arc::default(),
            names: Arc::default(),
            suspects: Arc::default(),
        })
    }

    /// Where carves lie. It is also asked for when carves are switched off, to delete those of before.
    pub(crate) fn blobs(&self) -> ostiary_blobs::Result<Blobs> {
        match self.blobs.get() {
            Some(blobs) => Ok(blobs.clone()),
            None => {
                let opened = Blobs::open(&self.settings.blobs)?;
                Ok(self.blobs.get_or_init(|| opened).clone())
            }
        }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

/// The dictionary of query names, as far as it was needed. Ids never change, so what is here stays true.
#[derive(Debug, Default)]
pub(crate) struct QueryNames(Mutex<HashMap<String, i32>>);

/// Hostile nodes may say many names; beyond this they are looked up each time.
const MOST_NAMES: usize = 50_000;

impl QueryNames {
    /// The ids of those names that are here.
    pub(crate) fn get<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> HashMap<String, i32> {
        let known = self
            .0
            .lock()
            .expect("nothing panics while it holds this lock");
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), *known.get(name)?)))
            .collect()
    }

    /// Remembers ids, once they are committed.
    pub(crate) fn remember(&self, ids: &HashMap<String, i32>) {
        let mut known = self
            .0
            .lock()
            .expect("nothing panics while it holds this lock");
        if known.len() < MOST_NAMES {
            known.extend(ids.iter().map(|(name, id)| (name.clone(), *id)));
        }
    }
}
