//! One group of pending work: some posts and facts of some nodes, worked in one transaction.
//!
//! **Invariant:** everything that follows from a post is committed together with the removal of its pending row, so that it happens
//! exactly once, whenever the process dies. Work of one node is done in the order received, by one transaction at a time.

mod names;
mod reading;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::LogType;
use ostiary_store::log_batches::compress;
use ostiary_store::pending::{self, Pending, TakeLimits, Work};
use ostiary_store::reporting_nodes::{self, ReportingNode};
use ostiary_store::unreadable::NewUnreadable;
use ostiary_store::{
    Conn, Db, Result, Tx, node_merges, post_fingerprints, present_rows, unreadable,
};

use crate::App;
use crate::decoding::{Memory, OpenPost, ReadPost};
use crate::knowledge::Known;
use crate::writes::{Outcome, Writes};
use names::name_queries;
use reading::{Group, find_present};

/// A pending row that the transaction has taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) id: i64,
    pub(crate) node_id: NodeId,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) attempts: i16,
}

/// What came of a group.
#[derive(Debug)]
pub(crate) enum Step {
    /// So many rows are no longer due.
    Done(usize),
    /// Nothing: the next row is suspicious, which takes the turn to work such rows.
    TurnNeeded,
    /// Some rows were claimed, and now the group is to be worked.
    Claimed {
        /// Those that were claimed just now.
        ids: Vec<i64>,
        /// The first and the last row of the whole group: what was claimed before belongs to it, and comes first.
        range: (i64, i64),
    },
}

/// Works due rows of those of `nodes` that nobody else works on. `taken` says which rows it was about, also when it fails or is
/// dropped; then nothing has happened. Whoever holds the turn to work suspicious rows says so.
///
/// What is left in `open` the caller rolls back: a transaction that is only dropped holds the locks of its nodes a little longer, and
/// the next attempt would find nothing to do.
pub(crate) async fn work(
    app: &App,
    nodes: &[NodeId],
    only: Option<(i64, i64)>,
    has_turn: bool,
    open: &mut Option<Tx>,
    taken: &mut Vec<Taken>,
) -> Result<Step> {
    let known = app.knowledge.fresh(&app.db).await?;
    let tx = open.insert(app.db.begin().await?);
    let locked = pending::lock_nodes(tx, nodes).await?;
    if locked.is_empty() {
        return Ok(Step::Done(0));
    }
    // An api that had not yet heard of a merge has taken posts for a node that is gone: they are the other one's.
    let followed = node_merges::follow(tx, &locked).await?;
    if followed > 0 {
        commit(open).await?;
        return Ok(Step::Done(usize::try_from(followed).unwrap_or(usize::MAX)));
    }
    let now = app.now();
    let options = &app.settings.worker;
    let limits = TakeLimits {
        rows: options.group_posts,
        bytes: options.group_kib.saturating_mul(1024),
        only,
    };
    let mut rows = pending::take(tx, &locked, now, limits).await?;
    // The rest stays as it is, for another group.
    rows.truncate(opened_at_once(&rows, options.max_opened_bytes()));
    rows.truncate(app.suspects.worked_together(&rows));
    let Some(first) = rows.first() else {
        return Ok(Step::Done(0));
    };
    let suspicious = app.suspects.is_suspicious(first);
    if suspicious && !has_turn {
        return Ok(Step::TurnNeeded);
    }
    let kills = app.suspects.deaths(first) >= options.attempts;
    let unclaimed: Vec<i64> = rows
        .iter()
        .map(|row| row.id)
        .filter(|id| !app.suspects.has_claimed(*id))
        .collect();
    if !kills && !unclaimed.is_empty() && (suspicious || app.suspects.is_young()) {
        pending::claim(tx, &unclaimed).await?;
        commit(open).await?;
        app.suspects.remember(&unclaimed);
        let range = (first.id, rows.last().map_or(first.id, |last| last.id));
        return Ok(Step::Claimed {
            ids: unclaimed,
            range,
        });
    }
    taken.extend(rows.iter().map(|row| Taken {
        id: row.id,
        node_id: row.node_id,
        received_at: row.received_at,
        attempts: row.attempts,
    }));
    if kills {
        let reason = "the worker died whenever it was processed".to_owned();
        tracing::warn!(pending.id = rows[0].id, node.id = %rows[0].node_id, reason, "set aside as unreadable");
        unreadable::insert(tx, &[set_aside(&rows[0], reason)]).await?;
        pending::delete(tx, &[rows[0].id]).await?;
        commit(open).await?;
        metrics::counter!("ostiary_worker_set_aside_total").increment(1);
        return Ok(Step::Done(1));
    }
    let (outcome, new_names, counts) = work_rows(app, &known, tx, &rows, now).await?;
    commit(open).await?;
    app.names.remember(&new_names);
    counts.report(&outcome, &rows, now);
    crate::jobs::ring_for_deliveries(app, &outcome.deliveries).await;
    Ok(Step::Done(rows.len()))
}

async fn commit(open: &mut Option<Tx>) -> Result<()> {
    match open.take() {
        Some(tx) => Db::commit(tx).await,
        None => Ok(()),
    }
}

/// What a group was made of, for metrics.
#[derive(Debug, Default)]
struct Counts {
    rows: u64,
    repeated: u64,
    unreadable: u64,
}

impl Counts {
    fn report(&self, outcome: &Outcome, rows: &[Pending], now: DateTime<Utc>) {
        metrics::counter!("ostiary_worker_posts_total").increment(rows.len() as u64);
        metrics::counter!("ostiary_worker_rows_total").increment(self.rows);
        metrics::counter!("ostiary_worker_repeated_lines_total").increment(self.repeated);
        metrics::counter!("ostiary_worker_unreadable_total").increment(self.unreadable);
        metrics::counter!("ostiary_worker_findings_opened_total").increment(outcome.opened);
        metrics::counter!("ostiary_worker_findings_recovered_total").increment(outcome.recovered);
        if let Some(oldest) = rows.iter().map(|row| row.received_at).min() {
            let lag = (now - oldest).as_seconds_f64().max(0.0);
            metrics::histogram!("ostiary_worker_lag_seconds").record(lag);
        }
    }
}

async fn work_rows(
    app: &App,
    known: &Known,
    conn: &mut Conn,
    rows: &[Pending],
    now: DateTime<Utc>,
) -> Result<(Outcome, HashMap<String, i32>, Counts)> {
    let ids: Vec<NodeId> = rows
        .iter()
        .map(|row| row.node_id)
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let nodes = reporting_nodes::find(conn, &ids).await?;
    let mut memory = Memory::new(post_fingerprints::list(conn, &ids).await?);
    let mut unreadable = Vec::new();
    let posts = open_posts(app, rows, &nodes, &mut unreadable);
    let read: Vec<ReadPost<'_>> = posts.iter().map(|post| post.read(&mut memory)).collect();
    let (names, new_names) = name_queries(app, conn, &read, now).await?;
    let mut writes = Writes::new(&known.rules);
    writes.remembered = std::mem::take(&mut memory.added);
    writes.unreadable = unreadable;
    writes.done = rows.iter().map(|row| row.id).collect();
    let mut group = Group {
        app,
        known,
        nodes: &nodes,
        names: &names,
        present: find_present(conn, known, &read, &names).await?,
        unsettled: present_rows::find_unsettled(conn, &ids).await?,
        writes,
        counts: Counts::default(),
    };
    let mut read = read.iter().peekable();
    for row in rows {
        if let Work::Fact(fact) = &row.work {
            group.fact(row, fact);
        }
        // Posts were read in the order of the rows, but not all rows have one.
        if let (Work::Batch(batch), Some(post)) = (&row.work, read.peek())
            && post.batch_id == batch.id
        {
            group.post(post);
            read.next();
        }
    }
    let (writes, counts) = group.finish();
    let outcome = writes.store(conn, &app.settings, now).await?;
    Ok((outcome, new_names, counts))
}

/// How many of these rows, from the first on, may be opened together; a post that is too large for that is opened alone.
fn opened_at_once(rows: &[Pending], most_bytes: u64) -> usize {
    let mut bytes = 0_u64;
    let fitting = rows.iter().take_while(|row| {
        if let Work::Batch(batch) = &row.work {
            bytes = bytes.saturating_add(batch.opened_len());
        }
        bytes <= most_bytes
    });
    fitting.count().max(1)
}

/// Decompresses the posts of nodes that exist. What cannot be opened is set aside; what belongs to a deleted node goes with it.
fn open_posts<'p>(
    app: &App,
    rows: &'p [Pending],
    nodes: &HashMap<NodeId, ReportingNode>,
    unreadable: &mut Vec<NewUnreadable>,
) -> Vec<OpenPost<'p>> {
    let mut posts = Vec::new();
    for row in rows.iter().filter(|row| nodes.contains_key(&row.node_id)) {
        match &row.work {
            Work::Batch(batch) => {
                match OpenPost::open(row, batch, app.settings.worker.max_post_bytes()) {
                    Ok(post) => posts.push(post),
                    Err(reason) => unreadable.push(set_aside(row, reason)),
                }
            }
            Work::Gone => {
                tracing::error!(pending.id = row.id, node.id = %row.node_id, "a waiting post is gone from log_batches");
            }
            Work::Fact(_) => {}
        }
    }
    posts
}

/// A whole post as unreadable; its data is compressed already.
pub(crate) fn set_aside(row: &Pending, reason: String) -> NewUnreadable {
    let (batch_id, log_type, data) = match &row.work {
        Work::Batch(batch) => {
            let log_type = LogType::of_letter(batch.log_type).as_str();
            (Some(batch.id), log_type, batch.data.clone())
        }
        Work::Fact(fact) => (None, "fact", compress(fact.to_string().as_bytes())),
        Work::Gone => (None, "unknown", compress(b"")),
    };
    NewUnreadable {
        id: new_id(),
        node_id: row.node_id,
        batch_id,
        log_type: log_type.into(),
        received_at: row.received_at,
        reason,
        data,
    }
}

#[cfg(test)]
mod tests {
    use ostiary_store::pending::Batch;

    use super::*;

    #[test]
    fn posts_that_are_small_only_while_compressed_are_not_opened_all_at_once() {
        let post = |bytes: usize| Pending {
            id: 1,
            node_id: NodeId(uuid::Uuid::nil()),
            received_at: DateTime::UNIX_EPOCH,
            attempts: 0,
            claims: 0,
            work: Work::Batch(Batch {
                id: 1,
                log_type: b'r',
                client_version: String::new(),
                data: compress(&vec![b' '; bytes]),
            }),
        };
        let posts = [post(400), post(500), post(200), post(10)];
        assert_eq!(opened_at_once(&posts, 1_000), 2);
        assert_eq!(opened_at_once(&posts, 2_000), 4);
        assert_eq!(opened_at_once(&[post(5_000), post(1)], 1_000), 1);
        assert_eq!(opened_at_once(&[post(1 << 20)], 0), 1);
    }
}
