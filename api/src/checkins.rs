//! Who was heard of, and what they fetched: kept in memory and written for all nodes together every few seconds.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::endpoint::Endpoint;
use ostiary_store::checkins::{self, Checkin};
use ostiary_store::configs::{self, DocumentHash};
use ostiary_store::node_keys::{self, KeyHash};
use ostiary_store::{Conn, Db, api_uptime};

use crate::configs::Document;

/// The use of a key is written this often at most.
const NOTE_KEY_EVERY: TimeDelta = TimeDelta::hours(1);
/// Nodes in one statement.
const CHUNK: usize = 5_000;

/// Who called.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) node: NodeId,
    pub(crate) key: KeyHash,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) client_version: String,
}

#[derive(Debug, Default)]
pub(crate) struct Checkins {
    noted: Mutex<Noted>,
    keys: Mutex<HashMap<KeyHash, DateTime<Utc>>>,
    /// What each node last fetched, and which documents Postgres has, as far as this process has written them.
    fetched: Mutex<HashMap<NodeId, DocumentHash>>,
    stored: Mutex<HashSet<DocumentHash>>,
}

#[derive(Debug, Default)]
struct Noted {
    nodes: HashMap<NodeId, Checkin>,
    keys: HashMap<KeyHash, DateTime<Utc>>,
    documents: HashMap<DocumentHash, Arc<Document>>,
    fetched: HashMap<NodeId, (DocumentHash, DateTime<Utc>)>,
}

impl Checkins {
    /// Notes a request.
    pub(crate) fn note(&self, caller: &Caller, endpoint: Endpoint, now: DateTime<Utc>) {
        let key_is_news = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let last = keys.entry(caller.key).or_insert(DateTime::UNIX_EPOCH);
            let news = now - *last >= NOTE_KEY_EVERY;
            if news {
                *last = now;
            }
            news
        };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if key_is_news {
            noted.keys.insert(caller.key, now);
        }
        let checkin = noted.nodes.entry(caller.node).or_default();
        let at = match endpoint {
            Endpoint::Config => &mut checkin.config_at,
            Endpoint::Log => &mut checkin.log_at,
            Endpoint::DistributedRead => &mut checkin.distributed_read_at,
            Endpoint::DistributedWrite => &mut checkin.distributed_write_at,
            Endpoint::Enroll => &mut checkin.enroll_at,
            Endpoint::CarveStart | Endpoint::CarveContinue => &mut checkin.seen_at,
        };
        *at = Some(now);
        checkin.ip = caller.ip.or(checkin.ip);
        if !caller.client_version.is_empty() && checkin.client_version != caller.client_version {
            checkin.client_version.clone_from(&caller.client_version);
        }
    }

    /// Notes that a node was heard of, which is refused everything until it is approved.
    pub(crate) fn note_seen(&self, caller: &Caller, now: DateTime<Utc>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let checkin = noted.nodes.entry(caller.node).or_default();
        checkin.seen_at = Some(now);
        checkin.ip = caller.ip.or(checkin.ip);
    }

    /// Notes which document a node was sent, if it is another than last time.
    pub(crate) fn note_fetched(&self, node: NodeId, document: &Arc<Document>, now: DateTime<Utc>) {
        let before = self
            .fetched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node, document.hash);
        if before == Some(document.hash) {
            return;
        }
        let unstored = !self
            .stored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&document.hash);
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if unstored {
            noted.documents.insert(document.hash, document.clone());
        }
        noted.fetched.insert(node, (document.hash, now));
    }

    /// Writes what was noted. What cannot be written is noted again.
    pub(crate) async fn flush(&self, db: &Db, now: DateTime<Utc>) -> ostiary_store::Result<()> {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let written = match db.begin().await {
            Ok(mut tx) => match write(&mut tx, &noted, now).await {
                Ok(()) => Db::commit(tx).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.stored
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(noted.documents.into_keys());
                Ok(())
            }
            Err(error) => {
                // The worker may have removed a document that nobody used: write it again.
                self.stored
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                self.fetched
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                self.put_back(noted);
                Err(error)
            }
        }
    }

    fn put_back(&self, older: Noted) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, older) in older.nodes {
            let newer = noted.nodes.entry(node).or_default();
            newer.seen_at = newer.seen_at.max(older.seen_at);
            newer.config_at = newer.config_at.max(older.config_at);
            newer.log_at = newer.log_at.max(older.log_at);
            newer.distributed_read_at = newer.distributed_read_at.max(older.distributed_read_at);
            newer.distributed_write_at = newer.distributed_write_at.max(older.distributed_write_at);
            newer.ip = newer.ip.or(older.ip);
            if newer.client_version.is_empty() {
                newer.client_version = older.client_version;
            }
        }
        for (key, at) in older.keys {
            noted.keys.entry(key).or_insert(at);
        }
        // What nodes fetched is noted anew at their next request; see `flush`.
    }
}

async fn write(conn: &mut Conn, noted: &Noted, now: DateTime<Utc>) -> ostiary_store::Result<()> {
    let nodes: Vec<(NodeId, Checkin)> = noted
        .nodes
        .iter()
        .map(|(id, checkin)| (*id, checkin.clone()))
        .collect();
    for chunk in nodes.chunks(CHUNK) {
        checkins::put(conn, chunk).await?;
    }
    if !noted.keys.is_empty() {
        node_keys::note_used(conn, &noted.keys).await?;
    }
    for document in noted.documents.values() {
        let text = std::str::from_utf8(&document.plain).expect("serde_json writes UTF-8");
        configs::put_document(conn, &document.hash, text, now).await?;
    }
    let fetched: Vec<_> = noted
        .fetched
        .iter()
        .map(|(node, (hash, at))| (*node, *hash, *at))
        .collect();
    for chunk in fetched.chunks(CHUNK) {
        configs::put_fetched(conn, chunk).await?;
    }
    // Last, since all apis write this row: whoever reads that we are there finds the check-ins, too.
    api_uptime::note(conn, now).await
}
