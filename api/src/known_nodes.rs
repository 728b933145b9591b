//! Nodes by their keys, in memory, so that a check-in asks nobody. What is not here is asked of Postgres.
//!
//! **Invariant:** `node_invalid` is only said after Postgres itself, at this moment, has called the key unknown or revoked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ostiary_store::Db;
use ostiary_store::node_keys::{self, KeyHash, KeyState, KnownNode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// For how long Postgres is not asked again about a key that it called unknown.
const REMEMBER_UNKNOWN: Duration = Duration::from_secs(10);
/// How many such keys are remembered: a stranger can invent any number.
const MAX_UNKNOWN: usize = 50_000;
/// How many look-ups go to Postgres at once, so that strangers cannot take all connections.
const LOOKUPS: usize = 4;

/// All nodes with a key in force.
#[derive(Debug)]
pub(crate) struct KnownNodes {
    by_key: RwLock<HashMap<KeyHash, Arc<KnownNode>>>,
    unknown: Mutex<HashMap<KeyHash, Instant>>,
    lookups: Semaphore,
    budget: Mutex<Budget>,
}

/// How many nodes may still be told to enroll again in this second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    since: Instant,
    left: u32,
}

/// The hash under which a key is known.
pub(crate) fn hash_of(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

impl KnownNodes {
    pub(crate) fn new(invalid_per_second: u32) -> Self {
        let budget = Budget {
            per_second: invalid_per_second,
            since: Instant::now(),
            left: invalid_per_second,
        };
        Self {
            by_key: RwLock::default(),
            unknown: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
            budget: Mutex::new(budget),
        }
    }

    /// Whose key is this?
    pub(crate) async fn authenticate(
        &self,
        db: &Db,
        key: &str,
    ) -> Result<(KeyHash, Arc<KnownNode>)> {
        if key.is_empty() {
            // Nobody was ever given the empty key.
            return Err(self.invalid());
        }
        let hash = hash_of(key);
        let node = match self.find(&hash) {
            Some(node) => node,
            None => self.look_up(db, hash).await?,
        };
        if node.disabled {
            Err(Error::Disabled)
        } else {
            Ok((hash, node))
        }
    }

    /// Whose key is this, as far as memory goes?
    pub(crate) fn find(&self, hash: &KeyHash) -> Option<Arc<KnownNode>> {
        self.by_key
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hash)
            .cloned()
    }

    /// Adds a key that was just given out.
    pub(crate) fn insert(&self, hash: KeyHash, node: Arc<KnownNode>) {
        self.by_key
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hash, node);
    }

    /// Reads everything anew.
    pub(crate) async fn reload(&self, db: &Db) -> ostiary_store::Result<()> {
        let mut conn = db.acquire().await?;
        let keys = node_keys::list_in_force(&mut conn).await?;
        let nodes: HashMap<_, _> = node_keys::list_nodes(&mut conn, None)
            .await?
            .into_iter()
            .map(|node| (node.id, Arc::new(node)))
            .collect();
        drop(conn);
        let by_key = keys
            .into_iter()
            .filter_map(|(hash, id)| Some((hash, nodes.get(&id)?.clone())))
            .collect();
        *self.by_key.write().unwrap_or_else(PoisonError::into_inner) = by_key;
        Ok(())
    }

    async fn look_up(&self, db: &Db, hash: KeyHash) -> Result<Arc<KnownNode>> {
        if self.is_remembered_as_unknown(&hash) {
            return Err(Error::Busy);
        }
        let _turn = self.lookups.acquire().await.map_err(|_| Error::Internal)?;
        if let Some(node) = self.find(&hash) {
            return Ok(node);
        }
        let mut conn = db.acquire().await?;
        let state = node_keys::find(&mut conn, &hash).await?;
        drop(conn);
        match state {
            KeyState::InForce(node) => {
                let node = Arc::new(node);
                self.insert(hash, node.clone());
                Ok(node)
            }
            KeyState::Revoked | KeyState::Unknown => {
                self.remember_as_unknown(hash);
                Err(self.invalid())
            }
        }
    }

    fn is_remembered_as_unknown(&self, hash: &KeyHash) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown
            .get(hash)
            .is_some_and(|since| since.elapsed() < REMEMBER_UNKNOWN)
    }

    fn remember_as_unknown(&self, hash: KeyHash) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= MAX_UNKNOWN {
            unknown.retain(|_, since| since.elapsed() < REMEMBER_UNKNOWN);
            if unknown.len() >= MAX_UNKNOWN {
                unknown.clear();
            }
        }
        unknown.insert(hash, Instant::now());
    }

    /// `node_invalid` while this second's budget lasts, else "busy": a restored backup must not start a storm of enrollments.
    fn invalid(&self) -> Error {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.since.elapsed() >= Duration::from_secs(1) {
            budget.since = Instant::now();
            budget.left = budget.per_second;
        }
        if budget.left == 0 {
            return Error::Busy;
        }
        budget.left -= 1;
        metrics::counter!("ostiary_node_invalid_total").increment(1);
        Error::NodeInvalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_nodes_a_second_are_told_to_enroll_again() {
        let nodes = KnownNodes::new(2);
        let answers: Vec<bool> = (0..5)
            .map(|_| matches!(nodes.invalid(), Error::NodeInvalid))
            .collect();
        assert_eq!(answers, [true, true, false, false, false]);
    }
}
