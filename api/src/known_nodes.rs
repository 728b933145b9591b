//! Nodes by their keys, in memory, so that a check-in asks nobody. What is not here is asked of Postgres.
//!
//! **Invariant:** `node_invalid` is only said after Postgres itself, at this moment, has called the key unknown or revoked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ostiary_domain::enrollment::Standing;
use ostiary_domain::ids::NodeId;
use ostiary_store::Db;
use ostiary_store::node_keys::{self, KeyHash, KeyState, KnownNode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::limits::{Buckets, LimitOptions, Network};

/// For how long Postgres is not asked again about a key that it called unknown.
const REMEMBER_UNKNOWN: Duration = Duration::from_secs(10);
/// How many such keys are remembered: a stranger can invent any number.
const MAX_UNKNOWN: usize = 50_000;
/// How many keys that were in force are remembered: those of a whole fleet, for a backup may be restored under it.
const MAX_FORMER: usize = 200_000;
/// How many look-ups go to Postgres at once, so that strangers cannot take all connections.
const LOOKUPS: usize = 4;

/// All nodes with a key in force.
#[derive(Debug)]
pub(crate) struct KnownNodes {
    by_key: RwLock<HashMap<KeyHash, Arc<KnownNode>>>,
    /// The generation of `node_keys` that `by_key` is of; 0 before the first.
    generation: Mutex<i64>,
    /// Keys that were in force a while ago, as far as this process knows: a node has them, not a stranger.
    former: Mutex<HashSet<KeyHash>>,
    unknown: Mutex<HashMap<KeyHash, Instant>>,
    lookups: Semaphore,
    strangers: Buckets<Network>,
    // Anybody can invent keys, so they must not use up what nodes have a right to whose keys were revoked.
    for_revoked: Mutex<Budget>,
    for_unknown: Mutex<Budget>,
}

/// How many nodes may still be told to enroll again in this second.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    since: Instant,
    left: u32,
}

impl Budget {
    fn new(per_second: u32) -> Mutex<Self> {
        Mutex::new(Self {
            per_second,
            since: Instant::now(),
            left: per_second,
        })
    }
}

/// The hash under which a key is known.
pub(crate) fn hash_of(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

impl KnownNodes {
    pub(crate) fn new(invalid_per_second: u32, limits: &LimitOptions) -> Self {
        Self {
            by_key: RwLock::default(),
            generation: Mutex::new(0),
            former: Mutex::default(),
            unknown: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
            strangers: Buckets::new(limits.unknown_keys_per_address, limits.max_counted),
            for_revoked: Budget::new(invalid_per_second),
            for_unknown: Budget::new(invalid_per_second),
        }
    }

    /// Whose key is this? The node may be barred: see [`admitted`].
    pub(crate) async fn identify(
        &self,
        db: &Db,
        key: &str,
        from: Network,
    ) -> Result<(KeyHash, Arc<KnownNode>)> {
        if key.is_empty() {
            // Nobody was ever given the empty key: a node that has none yet, and will ask for one in any case.
            metrics::counter!("ostiary_node_invalid_total").increment(1);
            return Err(Error::NodeInvalid);
        }
        let hash = hash_of(key);
        let node = match self.find(&hash) {
            Some(node) => node,
            None => self.look_up(db, hash, from).await?,
        };
        Ok((hash, node))
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

    /// Catches up with a generation: reads what changed since the last, or everything if that is not told or if `whole` is wanted.
    pub(crate) async fn catch_up(
        &self,
        db: &Db,
        generation: i64,
        whole: bool,
    ) -> ostiary_store::Result<()> {
        let seen = *self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut conn = db.acquire().await?;
        let changed = if whole || seen == 0 || seen > generation {
            None
        } else {
            node_keys::list_changed(&mut conn, seen, generation).await?
        };
        let only = changed.as_deref();
        let keys = node_keys::list_in_force(&mut conn, only).await?;
        let nodes: HashMap<NodeId, Arc<KnownNode>> = node_keys::list_nodes(&mut conn, only)
            .await?
            .into_iter()
            .map(|node| (node.id, Arc::new(node)))
            .collect();
        drop(conn);
        let read = keys
            .into_iter()
            .filter_map(|(hash, id)| Some((hash, nodes.get(&id)?.clone())));
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = Vec::new();
        match &changed {
            Some(changed) => {
                let changed: HashSet<NodeId> = changed.iter().copied().collect();
                dropped.extend(
                    by_key
                        .extract_if(|_, node| changed.contains(&node.id))
                        .map(|(hash, _)| hash),
                );
                by_key.extend(read);
            }
            None => {
                let before = std::mem::replace(&mut *by_key, read.collect());
                dropped.extend(before.into_keys());
            }
        }
        dropped.retain(|hash| !by_key.contains_key(hash));
        drop(by_key);
        self.remember_as_former(dropped);
        *self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = generation;
        let what = if changed.is_none() { "all" } else { "changed" };
        metrics::counter!("ostiary_node_reloads_total", "what" => what).increment(1);
        Ok(())
    }

    async fn look_up(&self, db: &Db, hash: KeyHash, from: Network) -> Result<Arc<KnownNode>> {
        if self.is_remembered_as_unknown(&hash) {
            return Err(Error::Busy);
        }
        let was_in_force = self.is_former(&hash);
        if !was_in_force && !self.strangers.has_room(&from, Instant::now()) {
            metrics::counter!("ostiary_unknown_keys_limited_total").increment(1);
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
            KeyState::Unknown if !was_in_force => {
                self.remember_as_unknown(hash);
                self.strangers.take(&from, 1, Instant::now());
                Err(invalid(&self.for_unknown))
            }
            KeyState::Revoked | KeyState::Unknown => {
                self.remember_as_unknown(hash);
                Err(invalid(&self.for_revoked))
            }
        }
    }

    fn is_former(&self, hash: &KeyHash) -> bool {
        self.former
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(hash)
    }

    fn remember_as_former(&self, dropped: Vec<KeyHash>) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if former.len() + dropped.len() > MAX_FORMER {
            former.clear();
        }
        former.extend(dropped.into_iter().take(MAX_FORMER));
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
}

/// Lets only nodes in force do anything. The others keep their keys: an invalid answer would loop them through enrollment.
pub(crate) fn admitted(node: &KnownNode) -> Result<()> {
    match node.standing {
        Standing::InForce => Ok(()),
        Standing::Waiting => Err(Error::Waiting),
        Standing::Disabled => Err(Error::Disabled),
        Standing::Refused => Err(Error::Refused),
    }
}

/// `node_invalid` while this second's budget lasts, else "busy": a restored backup must not start a storm of enrollments.
fn invalid(budget: &Mutex<Budget>) -> Error {
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    if budget.since.elapsed() >= Duration::from_secs(1) {
        budget.since = Instant::now();
        budget.left = budget.per_second;
    }
    if budget.left == 0 {
        metrics::counter!("ostiary_node_invalid_held_back_total").increment(1);
        return Error::Busy;
    }
    budget.left -= 1;
    metrics::counter!("ostiary_node_invalid_total").increment(1);
    Error::NodeInvalid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_nodes_a_second_are_told_to_enroll_again_and_strangers_use_up_only_their_own_share()
     {
        let nodes = KnownNodes::new(2, &LimitOptions::default());
        let ask = |budget: &Mutex<Budget>| matches!(invalid(budget), Error::NodeInvalid);
        let strangers: Vec<bool> = (0..5).map(|_| ask(&nodes.for_unknown)).collect();
        assert_eq!(strangers, [true, true, false, false, false]);
        assert!(ask(&nodes.for_revoked));
    }
}
