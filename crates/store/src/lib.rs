//! Postgres: everything that is remembered, and the only SQL of the house.
//!
//! **Invariant I2:** only this crate names sqlx. Functions are free and take a connection (`&mut Conn`); the caller owns the
//! transaction, so any two of them compose. Row structs stay private; what comes out are words of `ostiary_domain`.
//!
//! No outbound call is made while a transaction is open (invariant I7).

pub mod alerts;
pub mod api_tokens;
pub mod api_uptime;
pub mod audit;
pub mod backups;
pub mod carve_lists;
pub mod carve_upkeep;
pub mod carves;
pub mod certificates;
pub mod checkins;
pub mod config_parts;
pub mod config_revisions;
pub mod configs;
mod db;
pub mod decorators;
pub mod deliveries;
pub mod delivery_lists;
pub mod delivery_upkeep;
pub mod destination_circuits;
pub mod destinations;
pub mod doorman;
pub mod enroll_secrets;
pub mod enrollment;
mod error;
pub mod event_lists;
pub mod events;
pub mod facts;
pub mod file_paths;
pub mod finding_lists;
pub mod findings;
pub mod leftovers;
pub mod live_queries;
pub mod live_query_tasks;
pub mod log_batches;
pub mod node_approvals;
pub mod node_conflicts;
pub mod node_keys;
pub mod node_lists;
pub mod node_merges;
pub mod node_records;
pub mod node_versions;
pub mod nodes;
pub mod noted_facts;
pub mod options;
pub mod overview;
pub mod packed;
pub mod packs;
pub mod page;
pub mod partitions;
pub mod pending;
pub mod post_fingerprints;
pub mod present_rows;
pub mod queries;
pub mod query_names;
pub mod reporting_nodes;
pub mod rollout_nodes;
pub mod rollouts;
pub mod rule_edits;
mod rule_merges;
pub mod rule_values;
pub mod rules;
pub mod rules_history;
pub mod rules_revisions;
pub mod sections;
pub mod sessions;
pub mod silences;
pub mod sinks;
pub mod status_logs;
pub mod table_denials;
pub mod tags;
pub mod takeovers;
#[cfg(feature = "testing")]
pub mod testing;
pub mod unreadable;
pub mod upkeep;
pub mod uploads;
pub mod users;
pub mod vitals;

pub use db::{Conn, Db, Generations, MIGRATIONS, Options, Tx, generations};
pub use error::{Error, Result};
