//! The jobs that this process has taken: taking, renewing and answering for them. Knows no payload.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    Queue, Result,
    scripts::{self, Keys},
};

/// How long a job may go without a sign of life from its worker. Until then a killed worker's bell stays mute,
/// so it is short; a worker that stalls for longer is overtaken by another, which jobs must bear anyhow.
const LEASE: Duration = Duration::from_secs(10);

/// How many workers may die with a job before it is dropped.
const MAX_CRASHES: u32 = 3;

/// A job as it lies in Redis.
pub(crate) struct Leased {
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
}

/// The leases of one worker. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    queue: Queue,
    name: &'static str,
    keys: Keys,
    held: Arc<Mutex<HashSet<String>>>,
    length: Duration,
}

impl Leases {
    pub(crate) fn new(queue: Queue, name: &'static str) -> Self {
        let keys = queue.keys(name);
        Self {
            queue,
            name,
            keys,
            held: Arc::default(),
            length: LEASE,
        }
    }

    pub(crate) fn with_length(self, length: Duration) -> Self {
        Self { length, ..self }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    /// Takes up to `max` jobs, each under a lease that [`Leases::renew_forever`] keeps alive.
    pub(crate) async fn take(&self, max: usize) -> Result<Vec<Leased>> {
        let mut fetch = self.keys.invoke(&scripts::FETCH);
        fetch.arg(millis(self.length)).arg(max).arg(MAX_CRASHES);
        let (rows, dropped): (Vec<(String, Vec<u8>)>, Vec<String>) =
            self.queue.call(&fetch).await?;
        for id in dropped {
            tracing::error!(
                job.queue = self.name,
                job.id = id,
                "job dropped: {MAX_CRASHES} workers died with it"
            );
        }
        let (taken, twins) = self.hold(rows);
        if !twins.is_empty() {
            self.ring_again(twins).await;
        }
        Ok(taken)
    }

    /// Ends a lease after the work, well or badly done. Gives up when the lease has ended by itself.
    pub(crate) async fn finish(&self, id: String) {
        // Dropping also counts when the worker is torn down in the middle: the lease must then run out.
        let held = Held { leases: self, id };
        let deadline = Instant::now() + self.length;
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.release("done", std::slice::from_ref(&held.id)).await {
            if Instant::now() + pause > deadline {
                tracing::warn!(job.queue = self.name, job.id = held.id, %error, "job done, but Redis was not told: it will run again");
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Gives jobs back that were not begun.
    pub(crate) async fn give_back(&self, ids: Vec<String>) {
        if let Err(error) = self.release("back", &ids).await {
            tracing::warn!(job.queue = self.name, jobs = ids.len(), %error, "jobs not given back: their leases must run out");
        }
        self.held().retain(|held| !ids.contains(held));
    }

    /// Keeps the leases alive. Runs as a task of its own, for a busy worker must not starve it.
    pub(crate) async fn renew_forever(self) {
        let mut ticks = interval(self.length / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ids: Vec<String> = self.held().iter().cloned().collect();
            if ids.is_empty() {
                continue;
            }
            let mut renew = self.keys.invoke(&scripts::RENEW);
            renew.arg(millis(self.length)).arg(&ids);
            if let Err(error) = self.queue.call::<()>(&renew).await {
                tracing::warn!(job.queue = self.name, %error, "leases not renewed");
            }
        }
    }

    /// Tells apart what is new from what this worker is working already, which happens after a `FLUSHALL`.
    fn hold(&self, rows: Vec<(String, Vec<u8>)>) -> (Vec<Leased>, Vec<Leased>) {
        let mut held = self.held();
        rows.into_iter()
            .map(|(id, payload)| Leased { id, payload })
            .partition(|job| held.insert(job.id.clone()))
    }

    /// A worker cannot run one id twice at once (apalis panics), so the twin waits for the end of the first.
    async fn ring_again(&self, twins: Vec<Leased>) {
        let mut push = self.keys.invoke(&scripts::PUSH);
        for twin in twins {
            push.arg(twin.id).arg(twin.payload);
        }
        if let Err(error) = self.queue.call::<()>(&push).await {
            tracing::warn!(job.queue = self.name, %error, "bell lost; the sweep will ring again");
        }
    }

    async fn release(&self, how: &str, ids: &[String]) -> Result<()> {
        let mut release = self.keys.invoke(&scripts::RELEASE);
        release.arg(how).arg(ids);
        self.queue.call(&release).await
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of strings is whole after any panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held<'a> {
    leases: &'a Leases,
    id: String,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leases.held().remove(&self.id);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
