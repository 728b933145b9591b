//! Trying a rule on what was reported, before it is saved: the dry run. It reads one moment of the database, writes nothing, and ends when
//! whoever asked goes away, when its time is over, or when what it keeps in memory reaches its bound.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::rule::rehearsal::{Outcome, Rehearsal, Stored};
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules_history::{self, PackedEvent};
use ostiary_store::{Conn, Tx, query_names};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::rules::{RuleDraft, compile, validate};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Days that may be looked at.
pub const MOST_DAYS: i64 = 90;

/// It works so long at most, so that the answer comes before anybody gives up.
const MOST_TIME: Duration = Duration::from_secs(15);

/// A statement takes so many seconds at most.
const STATEMENT_SECONDS: u32 = 10;

/// Executions that are read at a time.
const SLICE: i64 = 500;

/// Hours of history that are asked for at a time, so that each statement reads few partitions.
const HOURS: i64 = 6;

/// Nodes that are shown.
const MOST_NODES: usize = 20;

/// What a rule would have done.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// Days that were asked for.
    pub days: i64,
    /// Findings that would have opened.
    pub findings: usize,
    /// Nodes on which they would have.
    pub nodes: usize,
    /// Those with the most findings.
    pub by_node: Vec<OfNode>,
    /// Rows that match.
    pub matches: u64,
    /// Rows that were looked at.
    pub rows: u64,
    /// The latest findings, with a row each.
    pub samples: Vec<Sample>,
    /// Set when not all days could be looked at: what came from then on was not.
    pub cut_off_at: Option<DateTime<Utc>>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Findings of a node.
#[derive(Debug, Serialize)]
pub struct OfNode {
    /// Which.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// How many.
    pub findings: usize,
}

/// A finding that would have opened.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Which node; none for the fleet.
    pub node_id: Option<Uuid>,
    /// What people call it.
    pub node_name: String,
    /// What it is about.
    pub entity: String,
    /// Of its first row.
    pub occurred_at: DateTime<Utc>,
    /// By which query.
    pub query_name: String,
    /// What happened to the row.
    pub action: &'static str,
    /// The row.
    pub columns: Box<RawValue>,
    /// Rows that would have counted on it.
    pub count: u64,
}

/// Tries a rule on the last days.
///
/// # Errors
/// [`Error::Invalid`].
pub async fn dry_run(app: &App, _: &Permit<Edit>, draft: &RuleDraft, days: &str) -> Result<Trial> {
    let days = days
        .trim()
        .parse::<i64>()
        .ok()
        .filter(|days| (1..=MOST_DAYS).contains(days))
        .ok_or_else(|| {
            Error::field(
                "days",
                format!("A whole number from 1 to {MOST_DAYS} is needed."),
            )
        })?;
    // What is tried may have no name yet.
    let named = RuleDraft {
        name: "a rule on trial".to_owned(),
        ..draft.clone()
    };
    let values = validate(&named)?;
    let rehearsal = Rehearsal::new(compile(RuleId(Uuid::nil()), &values)?);
    let tx = rules_history::begin(&app.db, STATEMENT_SECONDS).await?;
    let mut run = Run {
        tx,
        nodes: HashMap::new(),
        rehearsal,
        until: Instant::now() + MOST_TIME,
    };
    let began = Instant::now();
    let now = app.now();
    let mut awaited = Awaited { is_over: false };
    let cut_off_at = run.over(now - TimeDelta::days(days), now).await;
    awaited.is_over = true;
    Ok(run.report(days, cut_off_at?, began))
}

/// Says in the log when a run ends because nobody waits for it any more.
struct Awaited {
    is_over: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.is_over {
            tracing::info!("a dry run was given up: whoever asked for it went away");
        }
    }
}

struct Run {
    tx: Tx,
    nodes: HashMap<NodeId, ReportingNode>,
    rehearsal: Rehearsal,
    until: Instant,
}

impl Run {
    /// Goes over the history; gives from when on it could not.
    async fn over(
        &mut self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        let names = self.rehearsal.rule().query_names();
        let queries: Option<Vec<i32>> = match names {
            Some(names) => Some(
                query_names::find(&mut self.tx, &names)
                    .await?
                    .into_values()
                    .collect(),
            ),
            None => None,
        };
        if queries.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let mut begin = from;
        while begin < to {
            let end = (begin + TimeDelta::hours(HOURS)).min(to);
            let mut after = None;
            loop {
                let span = (begin, end);
                let queries = queries.as_deref();
                let events =
                    rules_history::list_events(&mut self.tx, queries, span, after, SLICE).await;
                let events = match events {
                    // A statement took too long; what was looked at until then is an outcome.
                    Err(error) if error.is_cancelled() => {
                        return Ok(Some(after.map_or(begin, |(at, _)| at)));
                    }
                    events => events?,
                };
                let Some(last) = events.last() else { break };
                let reached = last.received_at;
                after = Some((reached, last.id));
                self.take(&events).await?;
                if Instant::now() > self.until || self.rehearsal.is_full() {
                    return Ok(Some(reached));
                }
            }
            begin = end;
        }
        Ok(None)
    }

    async fn take(&mut self, events: &[PackedEvent]) -> Result<()> {
        find_nodes(
            &mut self.tx,
            &mut self.nodes,
            events.iter().map(|event| event.node_id),
        )
        .await?;
        for event in events {
            // Of nodes that are gone nobody would have been told.
            let Some(node) = self.nodes.get(&event.node_id) else {
                continue;
            };
            let rows = event.rows()?;
            self.rehearsal.take(&Stored {
                node_id: event.node_id,
                node: node.view(),
                query_name: &event.query_name,
                received_at: event.received_at,
                occurred_at: event.occurred_at,
                is_snapshot: event.snapshot,
                is_baseline: event.baseline,
                rows: &rows,
            });
        }
        // Others are served meanwhile, and a request that is over ends here.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn report(self, days: i64, cut_off_at: Option<DateTime<Utc>>, began: Instant) -> Trial {
        let nodes = self.nodes;
        let Outcome {
            findings,
            matches,
            rows,
            nodes: by_node,
            samples,
        } = self.rehearsal.finish();
        let name = |id: &NodeId| {
            nodes
                .get(id)
                .map_or_else(String::new, |node| node.facts.name.clone())
        };
        Trial {
            days,
            findings,
            nodes: by_node.len(),
            by_node: by_node
                .iter()
                .take(MOST_NODES)
                .map(|(id, findings)| OfNode {
                    id: id.0,
                    name: name(id),
                    findings: *findings,
                })
                .collect(),
            matches,
            rows,
            samples: samples
                .into_iter()
                .map(|opening| Sample {
                    node_id: opening.node_id.map(|id| id.0),
                    node_name: (opening.node_id.as_ref())
                        .map_or_else(|| "The fleet".to_owned(), name),
                    entity: opening.entity.text,
                    occurred_at: opening.occurred_at,
                    query_name: opening.query_name,
                    action: opening.action.as_str(),
                    columns: RawValue::from_string(opening.row).expect("a row is a JSON object"),
                    count: opening.count,
                })
                .collect(),
            cut_off_at,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Looks up the nodes that are not known yet.
async fn find_nodes(
    conn: &mut Conn,
    known: &mut HashMap<NodeId, ReportingNode>,
    wanted: impl Iterator<Item = NodeId>,
) -> Result<()> {
    let missing: HashSet<NodeId> = wanted.filter(|id| !known.contains_key(id)).collect();
    if !missing.is_empty() {
        let missing: Vec<NodeId> = missing.into_iter().collect();
        known.extend(rules_history::find_nodes(conn, &missing).await?);
    }
    Ok(())
}
