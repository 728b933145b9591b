//! Working what is pending until nothing is due, and what is done when work fails.
//!
//! A group that fails is tried again in halves, down to the one row that is to blame. Trouble with Postgres is never a post's fault:
//! then the row waits. Only a row that fails alone, for a reason of its own and more than once, is set aside as unreadable; so is one
//! that alone took too long very often while Postgres was well, and one on which processes died ([`crate::suspects`]).

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt as _;
use ostiary_domain::ids::NodeId;
use ostiary_store::pending::{self, TakeLimits};
use ostiary_store::{Db, Error, Result, Tx, partitions, unreadable};

use crate::App;
use crate::group::{self, Step, Taken};

/// Nodes of which a group may be made.
const NODES: usize = 32;

/// A row that has failed this often and takes too long once more, alone, is to blame itself.
const TIME_OUTS: i16 = 20;

/// How long an attempt waits for its transaction to be rolled back: until a statement that was left running has met its limit.
const ROLL_BACK: Duration = Duration::from_secs(15);

/// Nodes that are listed at a time.
const NODES_LISTED: i64 = 1_024;

/// Works due posts and facts until none is left that nobody else works on, or the process is to stop; gives how many were done.
/// Those who come with different `offset`s begin at different nodes.
///
/// # Errors
/// Postgres cannot be reached.
pub(crate) async fn work_until_idle(app: &App, offset: usize) -> Result<usize> {
    let mut done = 0;
    loop {
        let round = work_round(app, offset).await?;
        done += round;
        if round == 0 || app.shutdown.is_cancelled() {
            return Ok(done);
        }
    }
}

/// Gives every node with due work one turn.
async fn work_round(app: &App, offset: usize) -> Result<usize> {
    let (mut done, mut after) = (0, None);
    loop {
        let mut conn = app.db.acquire().await?;
        let mut found = pending::list_due_nodes(&mut conn, app.now(), after, NODES_LISTED).await?;
        drop(conn);
        let chunks = found.due.len().div_ceil(NODES).max(1);
        found.due.rotate_left(offset % chunks * NODES);
        for chunk in found.due.chunks(NODES) {
            if app.shutdown.is_cancelled() {
                return Ok(done);
            }
            done += work_nodes(app, chunk).await?;
        }
        match found.next {
            Some(next) => after = Some(next),
            None => {
                app.suspects.went_round();
                return Ok(done);
            }
        }
    }
}

/// Works one group of these nodes' rows; gives how many rows are no longer due.
async fn work_nodes(app: &App, nodes: &[NodeId]) -> Result<usize> {
    let mut settled = 0;
    // Ranges of ids still to be tried, the next one last.
    let mut ranges = vec![None];
    while let Some(range) = ranges.pop() {
        let (result, taken) = attempt(app, nodes, range).await;
        match result {
            Ok(rows) => settled += rows,
            Err(failure) if taken.is_empty() => return Err(failure.into_error()),
            Err(Failure::Store(Error::NoPartition(_))) if make_partitions(app, &taken).await? => {
                ranges.push(range);
            }
            Err(failure) => match taken.as_slice() {
                [one] => {
                    give_back_or_set_aside(app, one, &failure).await?;
                    settled += 1;
                }
                _ => {
                    tracing::info!(
                        rows = taken.len(),
                        reason = failure.reason(),
                        "a group failed; trying its halves"
                    );
                    let middle = taken.len() / 2;
                    ranges.push(Some((taken[middle].id, taken[taken.len() - 1].id)));
                    ranges.push(Some((taken[0].id, taken[middle - 1].id)));
                }
            },
        }
    }
    Ok(settled)
}

/// Why a group failed.
#[derive(Debug)]
enum Failure {
    Store(Error),
    TimedOut,
    Panicked,
}

impl Failure {
    /// Is it no fault of the rows, or may it be none?
    fn is_temporary(&self) -> bool {
        match self {
            // Partitions that can be made were made by now.
            Self::Store(Error::NoPartition(_)) => false,
            Self::Store(error) => error.is_temporary(),
            Self::TimedOut => true,
            Self::Panicked => false,
        }
    }

    fn is_time_out(&self) -> bool {
        match self {
            Self::Store(error) => error.is_cancelled(),
            Self::TimedOut => true,
            Self::Panicked => false,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::TimedOut => "it took too long".to_owned(),
            Self::Panicked => "its processing ended in a panic".to_owned(),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Store(error) => error,
            other => Error::Corrupt(format!("no group could be taken: {}", other.reason())),
        }
    }
}

async fn attempt(
    app: &App,
    nodes: &[NodeId],
    mut range: Option<(i64, i64)>,
) -> (std::result::Result<usize, Failure>, Vec<Taken>) {
    let (mut taken, mut claimed) = (Vec::new(), Vec::new());
    let mut turn = None;
    let result = loop {
        let has_turn = turn.is_some();
        let mut open = None;
        let work = group::work(app, nodes, range, has_turn, &mut open, &mut taken);
        let work = AssertUnwindSafe(work).catch_unwind();
        let ended = tokio::time::timeout(app.settings.worker.group_timeout(), work).await;
        if let Some(tx) = open {
            roll_back(tx).await;
        }
        match ended {
            Ok(Ok(Ok(Step::Done(rows)))) => break Ok(rows),
            // Waited for here, where no connection and no lock of a node is held.
            Ok(Ok(Ok(Step::TurnNeeded))) => turn = Some(app.suspects.turn.lock().await),
            Ok(Ok(Ok(Step::Claimed { ids, range: group }))) => {
                range = Some(group);
                claimed.extend(ids);
            }
            Ok(Ok(Err(error))) => break Err(Failure::Store(error)),
            Ok(Err(_panic)) => break Err(Failure::Panicked), // its message is in the log already, by the panic hook
            Err(_) => break Err(Failure::TimedOut),
        }
    };
    claimed.extend(taken.iter().map(|row| row.id));
    if result.is_ok() {
        // The claims on what is done are gone with it.
        let done = app.suspects.forget(taken.iter().map(|row| row.id));
        claimed.retain(|id| !done.contains(id));
    }
    release(app, claimed).await;
    (result, taken)
}

/// Rolls back, and waits for it, so that the locks are free for the next attempt.
async fn roll_back(tx: Tx) {
    match tokio::time::timeout(ROLL_BACK, Db::roll_back(tx)).await {
        Ok(Ok(())) => {}
        // The connection is broken; Postgres rolls back when it notices.
        Ok(Err(error)) => tracing::info!(%error, "a group could not be rolled back"),
        Err(_) => tracing::info!("rolling a group back took too long"),
    }
}

/// Takes back those of these claims that are ours.
async fn release(app: &App, ids: Vec<i64>) {
    let ids = app.suspects.forget(ids);
    if ids.is_empty() {
        return;
    }
    let released = async {
        let mut conn = app.db.acquire().await?;
        pending::release(&mut conn, &ids).await
    };
    if let Err(error) = released.await {
        tracing::warn!(%error, "claims could not be taken back; the next attempt will");
        app.suspects.remember(&ids);
    }
}

/// Makes the partitions of the days on which these rows came. `false` if one of those days is too far away for any.
async fn make_partitions(app: &App, taken: &[Taken]) -> Result<bool> {
    let mut days: Vec<_> = taken
        .iter()
        .map(|row| row.received_at.date_naive())
        .collect();
    days.sort_unstable();
    days.dedup();
    let mut conn = app.db.acquire().await?;
    for day in days {
        match partitions::ensure(&mut conn, day).await {
            Err(error) if error.is_temporary() => return Err(error),
            Err(error) => {
                tracing::warn!(%day, %error, "there is no partition for this day");
                return Ok(false);
            }
            Ok(()) => {}
        }
    }
    Ok(true)
}

/// A row that failed alone: it is tried again later, or, if it is to blame itself, set aside.
async fn give_back_or_set_aside(app: &App, row: &Taken, failure: &Failure) -> Result<()> {
    let attempts = row.attempts.saturating_add(1);
    let reason = failure.reason();
    let to_blame = if failure.is_time_out() {
        attempts >= TIME_OUTS && app.db.ping().await.is_ok()
    } else {
        !failure.is_temporary() && attempts >= app.settings.worker.attempts
    };
    if to_blame && set_aside(app, row, &reason).await? {
        metrics::counter!("ostiary_worker_set_aside_total").increment(1);
        tracing::warn!(pending.id = row.id, node.id = %row.node_id, attempts, reason, "set aside as unreadable");
        return Ok(());
    }
    let wait = back_off(attempts);
    tracing::warn!(pending.id = row.id, node.id = %row.node_id, attempts, wait_s = wait.as_secs(), reason, "work failed; it is tried again");
    let mut conn = app.db.acquire().await?;
    pending::postpone(
        &mut conn,
        row.id,
        app.now() + TimeDelta::from_std(wait).unwrap_or_default(),
        &reason,
    )
    .await
}

/// Keeps a row as unreadable and removes it from the pending work. `false` if somebody else has it by now.
async fn set_aside(app: &App, row: &Taken, reason: &str) -> Result<bool> {
    let mut tx = app.db.begin().await?;
    let nodes = pending::lock_nodes(&mut tx, &[row.node_id]).await?;
    let limits = TakeLimits {
        rows: 1,
        bytes: i64::MAX,
        only: Some((row.id, row.id)),
    };
    let Some(taken) = pending::take(&mut tx, &nodes, app.now(), limits)
        .await?
        .pop()
    else {
        return Ok(false);
    };
    unreadable::insert(
        &mut tx,
        &[group::set_aside(
            &taken,
            format!("could not be processed: {reason}"),
        )],
    )
    .await?;
    pending::delete(&mut tx, &[taken.id]).await?;
    Db::commit(tx).await?;
    Ok(true)
}

/// How long a row waits after so many attempts: 1 s, 4 s, 16 s, … up to five minutes.
fn back_off(attempts: i16) -> Duration {
    let doublings = u32::from(attempts.unsigned_abs()).saturating_sub(1).min(5) * 2;
    Duration::from_secs((1 << doublings).min(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_up_to_five_minutes() {
        let waits: Vec<u64> = (1..8)
            .map(|attempts| back_off(attempts).as_secs())
            .collect();
        assert_eq!(waits, [1, 4, 16, 64, 256, 300, 300]);
    }
}
