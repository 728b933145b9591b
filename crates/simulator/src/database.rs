//! What an osquery database keeps over restarts, and how it is kept in a file. Writing follows memory by
//! some seconds: a simulator that is killed (rather than stopped) comes back with an older database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::differential::Stored;
use crate::identity::Identity;
use crate::ledger::LedgerLine;
use crate::lines::Line;

/// The durable part of a node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Database {
    /// Who the node is. (The hardware is no part of a real database; here it must come back too.)
    pub identity: Identity,
    /// The node key.
    pub node_key: Option<String>,
    /// Differential state by query name.
    pub stored: BTreeMap<String, Option<Stored>>,
    /// (interval, splayed interval) by bare query name.
    pub splays: BTreeMap<String, (u64, u64)>,
    /// Live queries that were taken and not yet run, by id.
    pub live_queries: BTreeMap<String, String>,
    /// Until when (the node's clock) reads are accelerated.
    pub accelerate_until: i64,
    /// The scheduled query that is running: one that is still here when osqueryd starts has ended it.
    #[serde(default)]
    pub executing: Option<String>,
    /// Denylisted queries, and until when by the node's clock.
    #[serde(default)]
    pub denylist: BTreeMap<String, i64>,
    /// The SQL of the live query that is running: one that is still here when osqueryd starts has ended it.
    #[serde(default)]
    pub executing_live: Option<String>,
    /// Denylisted live queries by their SQL, and until when by the node's clock.
    #[serde(default)]
    pub live_denylist: BTreeMap<String, i64>,
    /// Undelivered lines, in a form of their own.
    #[serde(with = "kept_lines")]
    pub buffer: Buffer,
}

impl Database {
    /// An empty database of a new node.
    pub fn new(identity: Identity) -> Database {
        Database {
            identity,
            node_key: None,
            stored: BTreeMap::new(),
            splays: BTreeMap::new(),
            live_queries: BTreeMap::new(),
            accelerate_until: 0,
            executing: None,
            denylist: BTreeMap::new(),
            executing_live: None,
            live_denylist: BTreeMap::new(),
            buffer: Buffer::default(),
        }
    }

    /// The file of node `index` in the state folder.
    pub fn path(folder: &Path, index: usize) -> PathBuf {
        folder.join(format!("node-{index:05}.json"))
    }

    /// Reads a database, if there is one.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(path: &Path) -> anyhow::Result<Option<Database>> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let database = serde_json::from_slice(&bytes);
                Ok(Some(
                    database.with_context(|| format!("reading {}", path.display()))?,
                ))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys can be written")
    }
}

/// Writes a database in one step, so that a kill leaves the old or the new one. It holds a node key:
/// nobody else may read it.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let mut options = std::fs::File::options();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    std::fs::rename(&temporary, path)
}

mod kept_lines {
    use serde::{Deserializer, Serializer};

    use base64::Engine as _;

    use super::{Buffer, Deserialize, LedgerLine, Line, STANDARD, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Kept {
        base64: String,
        posted: bool,
        entry: LedgerLine,
    }

    pub(super) fn serialize<S: Serializer>(
        buffer: &Buffer,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(buffer.lines().map(|buffered| Kept {
            base64: STANDARD.encode(&buffered.line.bytes),
            posted: buffered.posted,
            entry: buffered.line.entry.clone(),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Buffer, D::Error> {
        let mut buffer = Buffer::default();
        for kept in Vec::<Kept>::deserialize(deserializer)? {
            let bytes = STANDARD
                .decode(&kept.base64)
                .map_err(serde::de::Error::custom)?;
            buffer.restore(
                Line {
                    bytes,
                    entry: kept.entry,
                },
                kept.posted,
            );
        }
        Ok(buffer)
    }
}
