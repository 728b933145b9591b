//! Open live queries, in memory: whether a poll gets one is decided here first, and only then asked of Postgres, which alone knows
//! what was handed out by other processes. A poll that gets nothing costs no statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::live_query::{LiveQuery, OFFER_AGAIN_AFTER};
use ostiary_store::node_keys::KnownNode;
use ostiary_store::{Db, live_query_tasks};

use crate::error::Result;

/// All that are open.
#[derive(Debug, Default)]
pub(crate) struct LiveQueries {
    open: ArcSwap<Vec<Open>>,
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
        let before = self.open.load();
        let open = queries.into_iter().map(|query| {
            let kept = before
                .iter()
                .find(|open| open.query.id == query.id)
                .map(|open| open.ask_again_at.clone());
            Open {
                query,
                ask_again_at: kept.unwrap_or_default(),
            }
        });
        self.open.store(Arc::new(open.collect()));
        Ok(())
    }

    /// Hands out what the node has not got yet: SQL by wire id.
    pub(crate) async fn take(
        &self,
        db: &Db,
        node: &KnownNode,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, String)>> {
        let open = self.open.load_full();
        let due: Vec<&Open> = open
            .iter()
            .filter(|open| open.is_worth_asking(node, now))
            .collect();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = due.iter().map(|open| open.query.id).collect();
        let mut conn = db.acquire().await?;
        let taken = live_query_tasks::take(&mut conn, node.id, &ids, now).await?;
        for open in &due {
            open.ask_not_before(node.id, now + OFFER_AGAIN_AFTER);
        }
        let handed_out = due
            .into_iter()
            .filter(|open| taken.contains(&open.query.id));
        Ok(handed_out
            .map(|open| (open.query.wire_id.clone(), open.query.sql.clone()))
            .collect())
    }

    /// The node has answered: it need not be asked again.
    pub(crate) fn settle(&self, node: NodeId, wire_id: &str) {
        if let Some(open) = self
            .open
            .load()
            .iter()
            .find(|open| open.query.wire_id == wire_id)
        {
            open.ask_not_before(node, open.query.expires_at);
        }
    }
}

impl Open {
    fn is_worth_asking(&self, node: &KnownNode, now: DateTime<Utc>) -> bool {
        self.query.is_open(now)
            && self.query.asks(node.id, &node.facts)
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
