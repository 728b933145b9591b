//! What every handler may use.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use ostiary_blobs::Blobs;
use ostiary_boot::clock::Clock;
use ostiary_domain::node::HealthLimits;
use ostiary_store::Db;
use ostiary_store::node_lists::Cutoffs;

use crate::actions::SqlCheckers;
use crate::settings::Settings;
use crate::views::Views;

/// The manager. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// Postgres.
    pub db: Db,
    /// As read at the start.
    pub settings: Arc<Settings>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Templates.
    pub views: Arc<Views>,
    blobs: Arc<OnceLock<Blobs>>,
    /// What is known of osquery's SQL.
    pub sql_checkers: Arc<SqlCheckers>,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(db: Db, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let views = Arc::new(Views::new(Arc::clone(&clock)));
        Self {
            db,
            settings: Arc::new(settings),
            clock,
            views,
            blobs: Arc::default(),
            sql_checkers: Arc::default(),
        }
    }

    /// Where carves lie; opened when it is first asked for.
    ///
    /// # Errors
    /// The settings `[blobs]` cannot be meant, or the folder cannot be used.
    pub fn blobs(&self) -> Result<Blobs, crate::error::Error> {
        match self.blobs.get() {
            Some(blobs) => Ok(blobs.clone()),
            None => {
                let opened = Blobs::open(&self.settings.blobs).map_err(anyhow::Error::from)?;
                Ok(self.blobs.get_or_init(|| opened).clone())
            }
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// What divides online from offline and silent, now.
    #[must_use]
    pub fn cutoffs(&self) -> Cutoffs {
        Cutoffs::at(self.now(), &HealthLimits::default())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}
