//! Which work may kill the process (by taking all memory, say), and how it is kept from doing so for ever. Working it: [`crate::group`].
//!
//! What kills the process leaves no failure behind that could be counted. So it is counted before: a claim is written down in a short
//! transaction of its own ([`ostiary_store::pending::claim`]) and taken back when the work has ended, well or not. A claim
//! that is still there and not ours is that of a process that died. Counting each group would cost each group a commit, so claimed is only:
//!
//! - what is *suspicious*: it has failed, or somebody died on it, or it is large. It is worked alone, one such row at a time
//!   in the whole process, lest the others die with the one to blame and be counted too;
//! - every group of a process that is young: up for less than a minute, or not yet through its first round over all nodes.
//!
//! A small post that kills an old process is not counted the first time. But the next process is young until that post has had its
//! turn, so a crash loop counts from its second death on, and ends after `worker.attempts` more.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ostiary_store::pending::{Pending, Work};

/// A process is young for this long.
const YOUNG: Duration = Duration::from_secs(60);

/// A post that is larger than this when opened is suspicious, in bytes.
const LARGE: u64 = 16 * 1024 * 1024;

/// What this process has claimed, and whether it is young.
#[derive(Debug)]
pub(crate) struct Suspects {
    started: Instant,
    been_round: AtomicBool,
    claimed: Mutex<HashSet<i64>>,
    /// Held by who works a suspicious row.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            been_round: AtomicBool::new(false),
            claimed: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl Suspects {
    /// Every node has had a turn.
    pub(crate) fn went_round(&self) {
        self.been_round.store(true, Ordering::Relaxed);
    }

    /// Is every group to be claimed?
    pub(crate) fn is_young(&self) -> bool {
        !self.been_round.load(Ordering::Relaxed) || self.started.elapsed() < YOUNG
    }

    /// How many processes began this row and never ended it.
    pub(crate) fn deaths(&self, row: &Pending) -> i16 {
        row.claims - i16::from(self.has_claimed(row.id))
    }

    pub(crate) fn is_suspicious(&self, row: &Pending) -> bool {
        let large = matches!(&row.work, Work::Batch(batch) if batch.opened_len() > LARGE);
        large || row.attempts > 0 || self.deaths(row) > 0
    }

    /// How many of these rows, from the first on, are worked together: one that is suspicious, or those before it.
    pub(crate) fn worked_together(&self, rows: &[Pending]) -> usize {
        rows.iter()
            .take_while(|row| !self.is_suspicious(row))
            .count()
            .max(1)
    }

    pub(crate) fn has_claimed(&self, id: i64) -> bool {
        self.lock().contains(&id)
    }

    /// Remembers claims that were committed.
    pub(crate) fn remember(&self, ids: &[i64]) {
        self.lock().extend(ids);
    }

    /// Forgets claims; gives those that were here.
    pub(crate) fn forget(&self, ids: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut claimed = self.lock();
        ids.into_iter().filter(|id| claimed.remove(id)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.claimed
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}
