//! One group of pending work: some posts and facts of some nodes, worked in one transaction.
//!
//! **Invariant:** everything that follows from a post is committed together with the removal of its pending row, so that it happens
//! exactly once, whenever the process dies. Work of one node is done in the order received, by one transaction at a time.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{Execution, Kind, Unreadable};
use ostiary_domain::present::{Change, Keeping, PresentRows, Reporter, Standing};
use ostiary_store::events::{NewEvent, encode_rows};
use ostiary_store::log_batches::compress;
use ostiary_store::pending::{self, Pending, TakeLimits, Work};
use ostiary_store::present_rows::{Stored, Unsettled};
use ostiary_store::reporting_nodes::{self, ReportingNode};
use ostiary_store::status_logs::NewStatus;
use ostiary_store::unreadable::NewUnreadable;
use ostiary_store::{
    Conn, Db, Result, Tx, node_merges, post_fingerprints, present_rows, query_names, unreadable,
};

use crate::App;
use crate::decoding::{Memory, OpenPost, ReadPost, log_type_name};
use crate::facts::Fact;
use crate::judging::Source;
use crate::knowledge::Known;
use crate::writes::{Outcome, Writes};

/// Unreadable lines of a post that are kept one by one; more are kept together.
const UNREADABLE_LINES: usize = 20;
/// Of what cannot be understood so much is kept, in bytes.
const UNREADABLE_MAX: usize = 1 << 20;

/// A longer name is none that an admin gave; an index could not hold it either.
const LONGEST_NAME: usize = 500;

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
    /// These rows were claimed, and are now to be worked.
    Claimed(Vec<i64>),
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
        return Ok(Step::Claimed(unclaimed));
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
    let outcome = writes
        .store(conn, &app.settings.public.manager_url, now)
        .await?;
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
            let log_type = match batch.log_type {
                b'r' => "result",
                b's' => "status",
                _ => "unknown",
            };
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

/// The ids of all query names of a group, and those of them that are not yet committed. A node may be the first to say only so many
/// names; those beyond get no id.
async fn name_queries(
    app: &App,
    conn: &mut Conn,
    posts: &[ReadPost<'_>],
    now: DateTime<Utc>,
) -> Result<(HashMap<String, i32>, HashMap<String, i32>)> {
    // Each name with the nodes that say it here, in the order of their posts.
    let mut said: HashMap<&str, Vec<NodeId>> = HashMap::new();
    for post in posts {
        for execution in post
            .decoded
            .executions
            .iter()
            .filter(|one| one.query_name.len() <= LONGEST_NAME)
        {
            let nodes = said.entry(&execution.query_name).or_default();
            if !nodes.contains(&post.node_id) {
                nodes.push(post.node_id);
            }
        }
    }
    let mut names = app.names.get(said.keys().copied());
    said.retain(|name, _| !names.contains_key(*name));
    if said.is_empty() {
        return Ok((names, HashMap::new()));
    }
    let missing: Vec<&str> = said.keys().copied().collect();
    let mut looked_up = query_names::find(conn, &missing).await?;
    said.retain(|name, _| !looked_up.contains_key(*name));
    if !said.is_empty() {
        let nodes: Vec<NodeId> = said.values().flatten().copied().collect();
        let introduced = query_names::count_introduced_by(conn, &nodes).await?;
        let new = introduce(said, introduced, app.settings.worker.names_per_node);
        looked_up.extend(query_names::insert(conn, &new, now).await?);
    }
    names.extend(looked_up.clone());
    Ok((names, looked_up))
}

/// Which names become known, each with the node that counts as the first to say it: one that may still introduce some.
fn introduce(
    said: HashMap<&str, Vec<NodeId>>,
    mut introduced: HashMap<NodeId, i64>,
    most: i64,
) -> Vec<(&str, NodeId)> {
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_unstable();
    let mut first_to_say = |nodes: &[NodeId]| {
        let node = *nodes
            .iter()
            .find(|node| introduced.get(node).is_none_or(|count| *count < most))?;
        *introduced.entry(node).or_default() += 1;
        Some(node)
    };
    said.into_iter()
        .filter_map(|(name, nodes)| Some((name, first_to_say(&nodes)?)))
        .collect()
}

type Pair = (NodeId, i32);

/// The present rows that the executions of a group may change.
async fn find_present(
    conn: &mut Conn,
    known: &Known,
    posts: &[ReadPost<'_>],
    names: &HashMap<String, i32>,
) -> Result<HashMap<Pair, Held>> {
    let mut pairs: HashSet<Pair> = HashSet::new();
    for post in posts {
        for execution in &post.decoded.executions {
            if known.schedule.keeping(&execution.query_name) != Keeping::Evented
                && let Some(id) = names.get(execution.query_name.as_ref())
            {
                pairs.insert((post.node_id, *id));
            }
        }
    }
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    let pairs: Vec<Pair> = pairs.into_iter().collect();
    let found = present_rows::find(conn, &pairs).await?;
    Ok(found
        .into_iter()
        .map(|stored| {
            (
                (stored.node_id, stored.query_name_id),
                Held {
                    present: stored.present,
                    changed: false,
                },
            )
        })
        .collect())
}

/// Present rows in memory.
#[derive(Debug, Default)]
struct Held {
    present: PresentRows,
    /// They are to be written.
    changed: bool,
}

/// A group under way.
struct Group<'g> {
    app: &'g App,
    known: &'g Known,
    nodes: &'g HashMap<NodeId, ReportingNode>,
    names: &'g HashMap<String, i32>,
    present: HashMap<Pair, Held>,
    unsettled: Vec<Unsettled>,
    writes: Writes<'g>,
    counts: Counts,
}

impl<'g> Group<'g> {
    fn fact(&mut self, row: &Pending, fact: &serde_json::Value) {
        let Some(node) = self.nodes.get(&row.node_id) else {
            return;
        };
        let source = Source {
            node,
            batch_id: None,
            occurred_at: row.received_at,
            received_at: row.received_at,
        };
        match Fact::read(fact) {
            Some(fact) => self.writes.judge.fact(source, &fact),
            None => self
                .writes
                .unreadable
                .push(set_aside(row, "a fact without a name".into())),
        }
    }

    fn post(&mut self, post: &'g ReadPost<'g>) {
        let Some(node) = self.nodes.get(&post.node_id) else {
            return;
        };
        self.counts.repeated += post.repeated as u64;
        for line in &post.decoded.statuses {
            self.writes.statuses.push(NewStatus {
                node_id: post.node_id,
                batch_id: post.batch_id,
                received_at: post.received_at,
                line,
            });
        }
        self.settle_before(node, post);
        for execution in &post.decoded.executions {
            match self.names.get(execution.query_name.as_ref()) {
                Some(id) => self.execution(node, post, execution, *id),
                None => self.writes.unreadable.push(beyond_the_cap(post, execution)),
            }
        }
        if post
            .decoded
            .executions
            .iter()
            .any(|execution| execution.kind == Kind::Snapshot)
        {
            let proof = (post.node_id, post.received_at);
            match self
                .writes
                .proofs
                .iter_mut()
                .find(|(node, _)| *node == post.node_id)
            {
                Some(earlier) => *earlier = proof.max(*earlier),
                None => self.writes.proofs.push(proof),
            }
        }
        self.unreadable_lines(post);
    }

    fn execution(
        &mut self,
        node: &'g ReportingNode,
        post: &'g ReadPost<'g>,
        execution: &'g Execution<'g>,
        id: i32,
    ) {
        let keeping = self.known.schedule.keeping(&execution.query_name);
        let version = post
            .version
            .or_else(|| node.facts.osquery_version.parse().ok());
        let reporter = Reporter {
            instance_id: &node.instance_id,
            version,
            keeping,
        };
        let change = if keeping == Keeping::Evented {
            PresentRows::default().apply(execution, &reporter)
        } else {
            self.present
                .entry((post.node_id, id))
                .or_default()
                .apply(execution, &reporter)
        };
        let late = post.received_at - execution.occurred_at > self.app.settings.worker.late_after();
        self.counts.rows += execution.rows.len() as u64;
        self.writes.vitals.take(node, execution);
        let source = Source {
            node,
            batch_id: Some(post.batch_id),
            occurred_at: execution.occurred_at,
            received_at: post.received_at,
        };
        self.writes.judge.execution(source, execution, &change);
        self.writes
            .judge
            .removed(source, &execution.query_name, &change.removed);
        self.writes.events.push(NewEvent {
            node_id: post.node_id,
            query_name_id: id,
            batch_id: post.batch_id,
            received_at: post.received_at,
            execution,
            baseline: is_baseline(execution, &change),
            late,
        });
    }

    /// A full set that came one row a line is whole when the node has gone on to something else: a post that brings news, but nothing
    /// of the set. What the set did not name is gone.
    fn settle_before(&mut self, node: &'g ReportingNode, post: &ReadPost<'g>) {
        if post.decoded.executions.is_empty() {
            return;
        }
        let of_the_node = |one: &mut Unsettled| {
            let goes_on = post
                .decoded
                .executions
                .iter()
                .any(|execution| execution.query_name == one.query_name);
            one.stored.node_id == post.node_id && !goes_on
        };
        for one in self
            .unsettled
            .extract_if(.., of_the_node)
            .collect::<Vec<_>>()
        {
            let held = self
                .present
                .entry((one.stored.node_id, one.stored.query_name_id))
                .or_insert_with(|| Held {
                    present: one.stored.present,
                    changed: false,
                });
            let change = held.present.settle();
            held.changed = true;
            let source = Source {
                node,
                batch_id: Some(post.batch_id),
                occurred_at: post.received_at,
                received_at: post.received_at,
            };
            self.writes
                .judge
                .removed(source, &one.query_name, &change.removed);
        }
    }

    fn unreadable_lines(&mut self, post: &ReadPost<'_>) {
        let lines = &post.decoded.unreadable;
        self.counts.unreadable += lines.len() as u64;
        let (one_by_one, together) = lines.split_at(lines.len().min(UNREADABLE_LINES));
        for line in one_by_one {
            self.writes
                .unreadable
                .push(unreadable(post, line.reason.to_string(), line.bytes));
        }
        if let Some(first) = together.first() {
            let reason = format!(
                "{} more lines of the post, the first: {}",
                together.len(),
                first.reason
            );
            let bytes = together
                .iter()
                .map(|line: &Unreadable<'_>| line.bytes)
                .collect::<Vec<_>>()
                .join(&b'\n');
            self.writes
                .unreadable
                .push(unreadable(post, reason, &bytes));
        }
    }

    fn finish(mut self) -> (Writes<'g>, Counts) {
        self.writes.present = self
            .present
            .into_iter()
            .filter(|(_, held)| held.changed)
            .map(|((node_id, query_name_id), held)| Stored {
                node_id,
                query_name_id,
                present: held.present,
            })
            .collect();
        self.writes
            .present
            .sort_unstable_by_key(|stored| (stored.node_id, stored.query_name_id));
        (self.writes, self.counts)
    }
}

impl Held {
    fn apply(&mut self, execution: &Execution<'_>, reporter: &Reporter<'_>) -> Change {
        let before = self.present.series.clone();
        let change = self.present.apply(execution, reporter);
        // A snapshot that is as before moves nothing but its own time, which decides nothing when it came in one line.
        let same = execution.kind == Kind::Snapshot
            && !execution.line_per_row
            && !change.content_changed
            && before.is_some_and(|before| {
                self.present.series.as_ref().is_some_and(|after| {
                    (
                        before.epoch,
                        before.snapshot,
                        before.knowledge,
                        &before.instance_id,
                    ) == (
                        after.epoch,
                        after.snapshot,
                        after.knowledge,
                        &after.instance_id,
                    )
                })
            });
        self.changed |= !same;
        change
    }
}

/// Nothing in it is a change: the first set ever, or a set that came again and holds only what we had.
fn is_baseline(execution: &Execution<'_>, change: &Change) -> bool {
    let came_again = execution.kind == Kind::Differential
        && !change.standings.is_empty()
        && change
            .standings
            .iter()
            .all(|standing| *standing == Standing::Known);
    change.is_baseline || came_again
}

fn unreadable(post: &ReadPost<'_>, reason: String, bytes: &[u8]) -> NewUnreadable {
    NewUnreadable {
        id: new_id(),
        node_id: post.node_id,
        batch_id: Some(post.batch_id),
        log_type: log_type_name(post.log_type).into(),
        received_at: post.received_at,
        reason,
        data: compress(&bytes[..bytes.len().min(UNREADABLE_MAX)]),
    }
}

fn beyond_the_cap(post: &ReadPost<'_>, execution: &Execution<'_>) -> NewUnreadable {
    let reason = if execution.query_name.len() > LONGEST_NAME {
        "the name of the query is too long".to_owned()
    } else {
        let name = &execution.query_name;
        format!("the node has said too many names of queries, \"{name}\" is one more")
    };
    let line = format!(
        "{{\"name\":{},\"rows\":{}}}",
        serde_json::Value::from(&*execution.query_name),
        encode_rows(execution)
    );
    unreadable(post, reason, line.as_bytes())
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
