//! What a backup says about itself: the first member of its archive, by which the others are checked.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ostiary_store::backups::Migrations;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The layout of the archive. A reader refuses any other.
pub(super) const FORMAT: u32 = 1;

/// Name of the manifest in the archive.
pub(super) const NAME: &str = "manifest.json";

/// Name of the database's dump: `pg_dump --format=custom`, compressed by zstd.
pub(super) const DATABASE: &str = "database.dump.zst";

/// Name of the sealing keys, as a section of the settings.
pub(super) const KEYS: &str = "keys.toml";

/// What no backup holds, in words for people.
pub(super) const LEFT_OUT: &[&str] = &[
    "contents of carves that are stored outside of Postgres",
    "Redis (it holds nothing that is needed)",
    "sessions and failed sign-ins",
    "passwords of the roles in Postgres (they stand in the settings of the processes)",
];

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// When the dump was begun.
    pub(super) made_at: DateTime<Utc>,
    /// Version of the program that made it.
    pub(super) ostiary: String,
    /// Version of the server that was dumped, e.g. `15.18`.
    pub(super) postgres: String,
    /// Migrations that were applied.
    pub(super) migrations: Migrations,
    /// By the name in `[keys]`: tells whether settings hold the same key, and nothing of the key itself.
    pub(super) key_fingerprints: BTreeMap<String, String>,
    /// Everything else in the archive, in its order.
    pub(super) members: Vec<Member>,
    /// [`LEFT_OUT`].
    pub(super) left_out: Vec<String>,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Its name there.
    pub(super) name: String,
    /// Where it lay on the machine; absent for what was made for the backup.
    pub(super) from: Option<String>,
    /// Its size.
    pub(super) bytes: u64,
    /// SHA-256 of it, in hexadecimal.
    pub(super) sha256: String,
}

impl Manifest {
    /// The major version of the server that was dumped.
    pub(super) fn postgres_major(&self) -> u32 {
        self.postgres
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0)
    }
}

/// Tells two keys apart without telling a key: it is 256 random bits, so nobody guesses it from this.
pub(super) fn fingerprint_of_key(key: &str) -> String {
    let digest = Sha256::digest(format!("ostiary backup key {}", key.trim().to_lowercase()));
    hex::encode(&digest[..8])
}
