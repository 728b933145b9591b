//! The sweep: plain timers that do what Redis forgot, and what nobody rings for. Never itself a job in Redis (design: Postgres is
//! the truth), so everything here goes on with Redis down, only some seconds later.

use std::time::Duration;

use chrono::TimeDelta;
use ostiary_domain::ids::NodeId;
use ostiary_store::upkeep::{self, Upkeep};
use ostiary_store::{
    Db, Result, backups, findings as store, node_merges, partitions, pending, post_fingerprints,
    present_rows, reporting_nodes, unreadable,
};
use tokio::time::MissedTickBehavior;

use crate::App;
use crate::carves;
use crate::certificates;
use crate::dead_man;
use crate::facts;
use crate::findings;
use crate::jobs::{self, deliver_alert, process_batches};
use crate::judging::Source;
use crate::rollouts;
use crate::studying;
use crate::writes::Writes;

/// Days for which partitions are made ahead.
const DAYS_AHEAD: u64 = 7;

/// Slices of the history of merged nodes that are moved at a time.
const SLICES_AT_ONCE: i64 = 20;

/// Nodes whose sets are settled at a time.
const SETTLE_AT_ONCE: i64 = 100;

/// Nodes that are back after a restore, and whose old rows are forgotten at a time.
const BACK_AT_ONCE: i64 = 200;

/// A repetition comes at most an hour late (osqueryd's longest back-off), a restored machine some hours.
const FINGERPRINTS_FOR: TimeDelta = TimeDelta::days(2);

/// Sweeps until the process is to stop.
pub(crate) async fn run(app: App) {
    let often = Duration::from_secs(app.settings.worker.sweep_seconds.max(1));
    let seldom = Duration::from_secs(app.settings.worker.upkeep_seconds.max(1));
    let signs = Duration::from_secs(app.settings.dead_man.every_seconds.max(1));
    tokio::join!(
        every(&app, often, "pending work", |app| async move {
            process_batches::work_until_idle(&app, 0).await.map(drop)
        }),
        every(&app, often, "deliveries", |app| async move {
            deliver_due(&app).await.map(drop)
        }),
        every(&app, often, "quiet nodes", |app| async move {
            self::often(&app).await
        }),
        every(&app, often, "carves", |app| async move {
            carves::join_received(&app).await?;
            look_after_carves(&app).await
        }),
        every(&app, often, "roll-outs", |app| async move {
            rollouts::advance(&app).await
        }),
        every(&app, often, "new rules", |app| async move {
            studying::study(&app).await
        }),
        every(&app, signs, "the sign of life", |app| async move {
            dead_man::signal(&app).await.map(drop)
        }),
        every(&app, seldom, "partitions and pruning", |app| async move {
            self::seldom(&app).await
        }),
    );
}

async fn every<F>(app: &App, period: Duration, what: &'static str, work: impl Fn(App) -> F)
where
    F: Future<Output = Result<()>>,
{
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_trouble = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.shutdown.cancelled() => return,
        }
        match work(app.clone()).await {
            Ok(()) if in_trouble => {
                tracing::info!(what, "the sweep works again");
                in_trouble = false;
            }
            Ok(()) => {}
            Err(error) if in_trouble => tracing::debug!(what, %error, "the sweep still fails"),
            Err(error) => {
                tracing::warn!(what, %error, "the sweep failed; trying on");
                in_trouble = true;
            }
        }
    }
}

/// Makes every delivery that is due; gives the number of attempts.
pub(crate) async fn deliver_due(app: &App) -> Result<usize> {
    let options = &app.settings.worker;
    let key = &app.settings.keys.destinations;
    let concurrency = options.delivery_concurrency;
    deliver_alert::deliver_due(
        &app.db,
        &app.outbound,
        key,
        &*app.clock,
        concurrency,
        &app.shutdown,
    )
    .await
}

/// Every few seconds, by one worker: facts that nobody reports, live queries that have run out, sets of rows that have ended.
pub(crate) async fn often(app: &App) -> Result<()> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    if upkeep::try_lead(&mut tx, Upkeep::Often).await? {
        facts::note_quiet(app, &mut tx).await?;
        facts::note_standing(app, &mut tx).await?;
        upkeep::expire_tasks(&mut tx, now).await?;
        let backlog = pending::backlog(&mut tx).await?;
        Db::commit(tx).await?;
        metrics::gauge!("ostiary_worker_pending")
            .set(f64::from(i32::try_from(backlog.rows).unwrap_or(i32::MAX)));
        let age = backlog
            .oldest_at
            .map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
        metrics::gauge!("ostiary_worker_oldest_pending_seconds").set(age);
    }
    findings::look_after_storms(app).await?;
    settle_sets(app).await?;
    move_histories(app).await?;
    forget_stale_rows(app).await
}

/// Present rows that a restore brought back, of nodes that have heard of the new epoch: each query tells all its rows anew, but one
/// that has none now would never say so.
async fn forget_stale_rows(app: &App) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let back = backups::list_nodes_back(&mut tx, BACK_AT_ONCE).await?;
    if back.is_empty() {
        return Ok(());
    }
    let locked = pending::lock_nodes(&mut tx, &back).await?;
    let sets = backups::delete_stale(&mut tx, &locked).await?;
    Db::commit(tx).await?;
    tracing::info!(
        nodes = locked.len(),
        sets,
        "rows of before the restore are forgotten: their nodes are back"
    );
    Ok(())
}

/// Every few seconds: carves that wait in vain, and who asked for those that came. Postgres sees to it that two workers do no harm.
pub(crate) async fn look_after_carves(app: &App) -> Result<()> {
    carves::give_up(app).await?;
    carves::explain(app).await
}

/// What merged nodes have reported, to the nodes that they became: in slices, each in a transaction of its own.
async fn move_histories(app: &App) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    let merged = node_merges::list_unmoved(&mut conn, SLICES_AT_ONCE).await?;
    drop(conn);
    for gone in merged {
        for _ in 0..SLICES_AT_ONCE {
            let mut tx = app.db.begin().await?;
            let moved = node_merges::move_history(&mut tx, gone, app.now()).await?;
            Db::commit(tx).await?;
            if moved == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Full sets that came one row a line and of which nothing more has come for long enough: what they did not name is gone.
async fn settle_sets(app: &App) -> Result<()> {
    let before = app.now() - TimeDelta::minutes(app.settings.worker.settle_after_minutes);
    let mut conn = app.db.acquire().await?;
    let nodes = upkeep::list_unsettled_nodes(&mut conn, before, SETTLE_AT_ONCE).await?;
    drop(conn);
    for node in nodes {
        settle_node(app, node).await?;
    }
    Ok(())
}

async fn settle_node(app: &App, id: NodeId) -> Result<()> {
    let known = app.knowledge.fresh(&app.db).await?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    if pending::lock_nodes(&mut tx, &[id]).await?.is_empty() {
        return Ok(());
    }
    let nodes = reporting_nodes::find(&mut tx, &[id]).await?;
    let Some(node) = nodes.get(&id) else {
        return Ok(());
    };
    let mut writes = Writes::new(&known.rules);
    for mut one in present_rows::find_unsettled(&mut tx, &[id]).await? {
        let change = one.stored.present.settle();
        let source = Source {
            node,
            batch_id: None,
            occurred_at: now,
            received_at: now,
        };
        let after = (&*change.removed, &one.stored.present.rows);
        writes.judge.settled(source, &one.query_name, after);
        writes.present.push(one.stored);
    }
    let outcome = writes.store(&mut tx, &app.settings, now).await?;
    Db::commit(tx).await?;
    jobs::ring_for_deliveries(app, &outcome.deliveries).await;
    Ok(())
}

/// Answers to live queries and findings forgotten in one statement, and statements in one turn: those of a fleet are many and large.
const FORGET_AT_ONCE: i64 = 2_000;
const FORGET_TIMES: usize = 50;

/// Every few minutes, by one worker: partitions, and what is past its time. What fails does not keep the rest from being done.
pub(crate) async fn seldom(app: &App) -> Result<()> {
    // Each by itself: making a partition needs a lock that others wait behind.
    let mut tx = app.db.begin().await?;
    if !upkeep::try_lead(&mut tx, Upkeep::Seldom).await? {
        return Ok(());
    }
    bear("partitions", keep_partitions(app).await);
    bear("what nodes sent", forget_what_is_old(app).await);
    bear("live queries", forget_live_queries(app).await);
    bear("roll-outs", rollouts::prune(app).await);
    bear("findings", forget_findings(app).await);
    bear("deliveries", jobs::forget_deliveries::forget(app).await);
    bear("certificates", certificates::note_ends(app).await);
    bear("untaken configs", facts::note_untaken_configs(app).await);
    bear("what rules have seen", studying::prune(app).await);
    // Releases the lead, unless Postgres has, because all that took long. What follows speaks to the storage, which may take long, too,
    // and does no harm when two do it.
    bear("the lead", Db::commit(tx).await);
    bear("carves", carves::delete_old(app).await);
    bear("orphans of carves", carves::delete_orphans(app).await);
    carves::clear_left_over(app).await;
    Ok(())
}

async fn keep_partitions(app: &App) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    partitions::ensure_ahead(&mut conn, app.now(), DAYS_AHEAD).await?;
    for partition in partitions::drop_old(&mut conn).await? {
        tracing::info!(partition, "dropped: past its retention");
    }
    Ok(())
}

async fn forget_what_is_old(app: &App) -> Result<()> {
    let (mut conn, now) = (app.db.acquire().await?, app.now());
    post_fingerprints::delete_older(&mut conn, now - FINGERPRINTS_FOR).await?;
    unreadable::delete_old(&mut conn, now).await?;
    upkeep::delete_unused_configs(&mut conn, now).await?;
    Ok(())
}

fn bear(what: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "upkeep of {what} failed; it is tried again");
    }
}

/// Findings that were resolved long ago or last matched long ago, with what was told of them, and silences that were over then.
async fn forget_findings(app: &App) -> Result<()> {
    let days = app.settings.worker.keep_findings_days.clamp(1, 36_500);
    let over = app.now() - TimeDelta::days(days);
    let mut conn = app.db.acquire().await?;
    for _ in 0..FORGET_TIMES {
        if store::delete_old(&mut conn, over, FORGET_AT_ONCE).await? == 0 {
            break;
        }
    }
    store::delete_old_silences(&mut conn, over).await
}

async fn forget_live_queries(app: &App) -> Result<()> {
    let days = app.settings.worker.keep_live_queries_days.clamp(1, 36_500);
    let over = app.now() - TimeDelta::days(days);
    let mut conn = app.db.acquire().await?;
    for _ in 0..FORGET_TIMES {
        if !upkeep::forget_live_query(&mut conn, over, FORGET_AT_ONCE).await? {
            break;
        }
    }
    Ok(())
}
