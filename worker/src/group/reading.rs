//! What follows from the posts and facts of a group, gathered in memory. Nothing is written here ([`crate::writes`]).

use std::collections::{HashMap, HashSet};

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{Execution, Kind, Unreadable};
use ostiary_domain::present::{Change, Keeping, PresentRows, Reporter, RowSet, Standing};
use ostiary_store::events::{NewEvent, encode_rows};
use ostiary_store::log_batches::compress;
use ostiary_store::pending::Pending;
use ostiary_store::present_rows::{self, Stored, Unsettled};
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::status_logs::NewStatus;
use ostiary_store::unreadable::NewUnreadable;
use ostiary_store::{Conn, Result};

use super::names::LONGEST_NAME;
use super::{Counts, set_aside};
use crate::App;
use crate::decoding::ReadPost;
use crate::facts::Fact;
use crate::judging::Source;
use crate::knowledge::Known;
use crate::writes::Writes;

/// Unreadable lines of a post that are kept one by one; more are kept together.
const UNREADABLE_LINES: usize = 20;
/// Of what cannot be understood so much is kept, in bytes.
const UNREADABLE_MAX: usize = 1 << 20;

pub(super) type Pair = (NodeId, i32);

/// The present rows that the executions of a group may change.
pub(super) async fn find_present(
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
pub(super) struct Held {
    present: PresentRows,
    /// They are to be written.
    changed: bool,
}

/// A group under way.
pub(super) struct Group<'g> {
    pub(super) app: &'g App,
    pub(super) known: &'g Known,
    pub(super) nodes: &'g HashMap<NodeId, ReportingNode>,
    pub(super) names: &'g HashMap<String, i32>,
    pub(super) present: HashMap<Pair, Held>,
    pub(super) unsettled: Vec<Unsettled>,
    pub(super) writes: Writes<'g>,
    pub(super) counts: Counts,
}

impl<'g> Group<'g> {
    pub(super) fn fact(&mut self, row: &Pending, fact: &serde_json::Value) {
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

    pub(super) fn post(&mut self, post: &'g ReadPost<'g>) {
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
        let nothing = RowSet::default();
        let (change, present) = if keeping == Keeping::Evented {
            (PresentRows::default().apply(execution, &reporter), &nothing)
        } else {
            let held = self.present.entry((post.node_id, id)).or_default();
            let change = held.apply(execution, &reporter);
            (change, &held.present.rows)
        };
        let late = post.received_at - execution.occurred_at > self.app.settings.worker.late_after();
        self.counts.rows += execution.rows.len() as u64;
        let facts = self.writes.vitals.take(node, execution);
        let source = Source {
            node,
            batch_id: Some(post.batch_id),
            occurred_at: execution.occurred_at,
            received_at: post.received_at,
        };
        self.writes
            .judge
            .execution(source, execution, &change, present);
        for fact in &facts {
            self.writes.judge.fact(source, fact);
        }
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
            let after = (&*change.removed, &held.present.rows);
            self.writes.judge.settled(source, &one.query_name, after);
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

    pub(super) fn finish(mut self) -> (Writes<'g>, Counts) {
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
        log_type: post.log_type.as_str().into(),
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
