//! The worker: what happens to a post after it was stored.
//!
//! [`jobs::process_batches`] claims posts and facts from Postgres and works them in [`group`]s, one transaction each: decoded
//! ([`decoding`]), freed of repetitions, kept as events and present rows, judged by the rules ([`judging`]), with findings, alerts and
//! deliveries. Alerts are sent by `jobs::deliver_alert`. [`registry`] is the one list of jobs; [`sweep`] is a plain timer that finds
//! what Redis forgot: Postgres is the truth, Redis a bell that may be lost (invariant I4).

mod carves;
mod certificates;
mod counting;
mod dead_man;
mod decoding;
mod facts;
mod findings;
mod group;
mod health;
mod jobs;
mod judging;
mod knowledge;
mod registry;
mod rollouts;
mod schedule;
mod settings;
mod sinks;
mod state;
mod studying;
mod suspects;
mod sweep;
mod vitals;
mod writes;

pub use dead_man::DeadMan;
pub use settings::{Keys, Options, Public, Settings};
pub use state::App;

use std::sync::Arc;

use ostiary_boot::clock::SystemClock;
use tokio_util::sync::CancellationToken;

/// Works until `shutdown`, then ends what is under way.
///
/// # Errors
/// The settings cannot be meant, or the address of the health listener is taken. A missing Postgres or Redis is no error: both may
/// come back.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let recorder = ostiary_boot::metrics::start();
    let listen = settings.worker.listen;
    let app = App::new(settings, Arc::new(SystemClock), shutdown.clone())?;
    let health = health::serve(app.clone(), listen, recorder).await?;
    tracing::info!(%listen, "the worker works");
    // Boxed: rustc's limit on nested types does not reach over all jobs and the sweep as one future.
    tokio::join!(
        Box::pin(registry::run(app.clone())),
        Box::pin(sweep::run(app.clone())),
        Box::pin(sinks::run(app.clone()))
    );
    health.await?;
    app.db.close().await;
    tracing::info!("the worker has stopped");
    Ok(())
}

impl App {
    /// Does all work that is due, without Redis: every pending row and every delivery. For tests that step the worker.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn run_until_idle(&self) -> Result<(), ostiary_store::Error> {
        loop {
            let worked = jobs::process_batches::work_until_idle(self, 0).await?;
            let delivered = sweep::deliver_due(self).await?;
            let joined = carves::join_received(self).await?;
            let forwarded = sinks::forward_all(self).await?;
            if worked + delivered + joined + forwarded == 0 {
                return Ok(());
            }
        }
    }

    /// New and changed rules look at what is present, as the sweep has them do. For tests.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn study_rules(&self) -> Result<(), ostiary_store::Error> {
        studying::study(self).await
    }

    /// Gives a sign of life, if all is well; says whether it was heard. For tests.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn signal_life(&self) -> Result<bool, ostiary_store::Error> {
        dead_man::signal(self).await
    }

    /// One turn of the sweep's upkeep: partitions, pruning, quiet nodes, sets that have ended. For tests.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn keep_up(&self) -> Result<(), ostiary_store::Error> {
        sweep::often(self).await?;
        sweep::look_after_carves(self).await?;
        rollouts::advance(self).await?;
        sweep::seldom(self).await
    }
}
