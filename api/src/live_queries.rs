//! Open live queries, in memory: whether a poll gets one is decided here first, and only then asked of Postgres, which alone knows
//! what was handed out by other processes. A poll that gets nothing costs no statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use ostiary_domain::carve::{CarveOptions, why_not};
use ostiary_domain::ids::NodeId;
use ostiary_domain::live_query::{LiveQuery, OFFER_AGAIN_AFTER};
use ostiary_domain::node::NodeFacts;
use ostiary_domain::table_denial::TableDenial;
use ostiary_store::node_keys::KnownNode;
use ostiary_store::{Db, live_query_tasks, table_denials};

use crate::error::Result;

/// All that are open.
#[derive(Debug, Default)]
pub(crate) struct LiveQueries {
    open: ArcSwap<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    queries: Vec<Open>,
    /// Changed rarely; whoever changes them bumps this generation, too.
    denials: Vec<TableDenial>,
}

/// What a poll gets.
#[derive(Debug)]
pub(crate) struct HandedOut {
    pub(crate) wire_id: String,
    pub(crate) sql: String,
    pub(crate) discovery: Option<String>,
}

#[derive(Debug)]
struct Open {
    query: LiveQuery,
    /// When it is worth asking Postgres again for a node; outlives reloads.
    ask_again_at: Arc<Mutex<HashMap<NodeId, DateTime<Utc>>>>,
}

impl LiveQueries {
    /// Reads which are open.
    pub(crate) async fn reload(&self, db: &Db, now: DateTime<Utc>) -> ostiary_store::Result<()> {
        let mut conn = db.acquire().await?;
        let queries = live_query_tasks::list_open(&mut conn, now).await?;
        let denials = table_denials::list_values(&mut conn).await?;
        let before = self.open.load();
        let open = queries.into_iter().map(|query| {
            let kept = before
                .queries
                .iter()
                .find(|open| open.query.id == query.id)
                .map(|open| open.ask_again_at.clone());
            Open {
                query,
                ask_again_at: kept.unwrap_or_default(),
            }
        });
        self.open.store(Arc::new(Loaded {
            queries: open.collect(),
            denials,
        }));
        Ok(())
    }

    /// Hands out what the node has not got yet.
    ///
    /// A query with a discovery goes out alone: should the discovery fail in SQL after all, osqueryd forgets the whole answer.
    pub(crate) async fn take(
        &self,
        db: &Db,
        node: &KnownNode,
        now: DateTime<Utc>,
    ) -> Result<Vec<HandedOut>> {
        let open = self.open.load_full();
        let (plain, conditional): (Vec<&Open>, Vec<&Open>) = open
            .queries
            .iter()
            .filter(|each| each.is_worth_asking(node, &open.denials, now))
            .partition(|each| each.query.discovery.is_none());
        let due: Vec<&Open> = if plain.is_empty() {
            conditional.into_iter().take(1).collect()
        } else {
            plain
        };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = due.iter().map(|open| open.query.id).collect();
        let mut tx = db.begin().await?;
        live_query_tasks::settle_unanswered(&mut tx, node.id, &ids, now).await?;
        let taken = live_query_tasks::take(&mut tx, node.id, &ids, now).await?;
        Db::commit(tx).await?;
        for open in &due {
            open.ask_not_before(node.id, now + OFFER_AGAIN_AFTER);
        }
        let handed_out = due
            .into_iter()
            .filter(|open| taken.contains(&open.query.id));
        Ok(handed_out
            .map(|open| HandedOut {
                wire_id: open.query.wire_id.clone(),
                sql: open.query.sql.clone(),
                discovery: open.query.discovery.as_ref().map(|own| own.sql.clone()),
            })
            .collect())
    }

    /// Are no files of this node collected (any more)?
    pub(crate) fn is_carving_denied(&self, options: &CarveOptions, node: &NodeFacts) -> bool {
        why_not(options, &self.open.load().denials, node).is_some()
    }

    /// The node has answered: it need not be asked again.
    pub(crate) fn settle(&self, node: NodeId, wire_id: &str) {
        if let Some(open) = self
            .open
            .load()
            .queries
            .iter()
            .find(|open| open.query.wire_id == wire_id)
        {
            open.ask_not_before(node, open.query.expires_at);
        }
    }
}

impl Open {
    fn is_worth_asking(
        &self,
        node: &KnownNode,
        denials: &[TableDenial],
        now: DateTime<Utc>,
    ) -> bool {
        self.query.is_open(now)
            && self.query.asks(node.id, &node.facts)
            && self.query.is_kept_from(&node.facts, denials).is_none()
            && self
                .lock()
                .get(&node.id)
                .is_none_or(|ask_again_at| *ask_again_at <= now)
    }

    fn ask_not_before(&self, node: NodeId, at: DateTime<Utc>) {
        self.lock().insert(node, at);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, DateTime<Utc>>> {
        self.ask_again_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
