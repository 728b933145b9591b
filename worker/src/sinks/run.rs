//! Every sink is run by one worker, in a task of its own: a dead one keeps nobody waiting but itself.
//!
//! Who runs a sink holds it by a lease, renewed by a timer, since a batch may take longer than a lease. A worker that was killed loses
//! its sinks within seconds; one that only slept finds that its lease is gone, and what it sent moves no cursor.

use std::time::Duration;

use chrono::TimeDelta;
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::SinkId;
use ostiary_store::Result;
use ostiary_store::sinks::runs;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::turn::{Held, IDLE, turn};
use crate::App;

/// How long a sink is held without a sign of life.
const LEASE: TimeDelta = TimeDelta::seconds(12);
/// How often it is held anew.
const HOLD_EVERY: Duration = Duration::from_secs(3);
/// How long a batch under way may take to end when the process is to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs sinks until the process is to stop.
pub(crate) async fn run(app: App) {
    let mut running = JoinSet::new();
    let mut in_trouble = false;
    while !app.shutdown.is_cancelled() {
        match take_free(&app).await {
            Ok(taken) => {
                for (id, lease) in taken {
                    running.spawn(run_one(app.clone(), id, lease));
                }
                in_trouble = false;
            }
            Err(error) if in_trouble => tracing::debug!(%error, "sinks still cannot be found"),
            Err(error) => {
                tracing::warn!(%error, "sinks cannot be found; trying on");
                in_trouble = true;
            }
        }
        while running.try_join_next().is_some() {}
        pause(&app, IDLE).await;
    }
    while running.join_next().await.is_some() {}
}

/// Waits, but not beyond the end of the process.
async fn pause(app: &App, wait: Duration) {
    let _ = tokio::time::timeout(wait, app.shutdown.cancelled()).await;
}

async fn take_free(app: &App) -> Result<Vec<(SinkId, Uuid)>> {
    let mut conn = app.db.acquire().await?;
    let now = app.now();
    let mut taken = Vec::new();
    for id in runs::list_free(&mut conn, now).await? {
        let lease = new_id();
        if runs::take(&mut conn, id, lease, now, now + LEASE).await? {
            taken.push((id, lease));
        }
    }
    Ok(taken)
}

/// Runs one sink for as long as it is ours and there is something to do for it.
async fn run_one(app: App, id: SinkId, lease: Uuid) {
    let lost = CancellationToken::new();
    let holding = tokio::spawn(keep_holding(app.clone(), id, lease, lost.clone()));
    let rounds = async {
        let mut held = Held::default();
        while !app.shutdown.is_cancelled() {
            match round(&app, id, lease, &mut held).await {
                Ok(Some(wait)) => pause(&app, wait).await,
                Ok(None) => {
                    tell_gone(id);
                    break;
                }
                Err(error) => {
                    tracing::warn!(sink.id = %id, %error, "a sink cannot go on; trying on");
                    pause(&app, IDLE).await;
                }
            }
        }
    };
    let drained = async {
        app.shutdown.cancelled().await;
        let _ = tokio::time::timeout(DRAIN, std::future::pending::<()>()).await;
    };
    tokio::select! {
        () = rounds => {}
        () = lost.cancelled() => {}
        () = drained => {}
    }
    holding.abort();
    release(&app, id, lease).await;
}

/// One round; gives how long to wait, `None` when the sink is ours no more.
async fn round(app: &App, id: SinkId, lease: Uuid, held: &mut Held) -> Result<Option<Duration>> {
    let mut conn = app.db.acquire().await?;
    let Some(running) = runs::hold(&mut conn, id, lease, app.now() + LEASE).await? else {
        return Ok(None);
    };
    drop(conn);
    let turn = turn(app, &running, held).await?;
    Ok(Some(turn.wait.unwrap_or_default()))
}

async fn keep_holding(app: App, id: SinkId, lease: Uuid, lost: CancellationToken) {
    let mut turns = tokio::time::interval(HOLD_EVERY);
    loop {
        turns.tick().await;
        let held = async {
            let mut conn = app.db.acquire().await?;
            runs::hold(&mut conn, id, lease, app.now() + LEASE).await
        };
        match held.await {
            Ok(Some(_)) => {}
            Ok(None) => {
                tell_gone(id);
                return lost.cancel();
            }
            // Postgres may be back before the lease is over; if not, nothing that is said later is heard.
            Err(error) => tracing::warn!(sink.id = %id, %error, "a sink cannot be held"),
        }
    }
}

/// It was switched off; or somebody else has it, who sends again what moved no cursor.
fn tell_gone(id: SinkId) {
    tracing::info!(sink.id = %id, "a sink is held no more");
}

async fn release(app: &App, id: SinkId, lease: Uuid) {
    let released = async {
        let mut conn = app.db.acquire().await?;
        runs::release(&mut conn, id, lease).await
    };
    if let Err(error) = released.await {
        tracing::debug!(sink.id = %id, %error, "a sink is let go by its lease");
    }
}

/// Forwards all there is, once, by every sink that nobody runs; gives the number of lines. For tests that step the worker.
pub(crate) async fn forward_all(app: &App) -> Result<usize> {
    let mut lines = 0;
    for (id, lease) in take_free(app).await? {
        let mut held = Held::default();
        loop {
            let mut conn = app.db.acquire().await?;
            let running = runs::hold(&mut conn, id, lease, app.now() + LEASE).await?;
            drop(conn);
            let Some(running) = running else { break };
            let turn = turn(app, &running, &mut held).await?;
            lines += usize::try_from(turn.lines).unwrap_or(0);
            if turn.wait.is_some() {
                break;
            }
        }
        release(app, id, lease).await;
    }
    Ok(lines)
}
