//! `ostiary-fleet`: a fleet of simulated osqueryds, written from osquery's protocol and sharing no code
//! with the server, so that it cannot repeat the server's misreadings.
//!
//! A [`fleet::Fleet`] runs nodes of three operating systems and six versions against a real TLS server.
//! They enroll, take configs, run their schedule on [`tables`], flush logs, answer live queries, drift and
//! misbehave when told to. Each log line carries an id; a [`ledger::Ledger`] notes every line that a client
//! deleted because the server said it may, and [`verdict::Verdict`] says which of them the server has.

pub mod answer;
pub mod buffer;
pub mod carver;
pub mod client;
pub mod config;
pub mod control;
pub mod counters;
pub mod database;
pub mod differential;
pub mod drift;
pub mod fleet;
pub mod identity;
pub mod ledger;
pub mod lines;
pub mod misbehave;
mod node;
pub mod schedule;
pub mod select;
pub mod settings;
pub mod stored;
pub mod tables;
pub mod value;
pub mod verdict;
pub mod version;

pub use carver::{Carve, Carver};
pub use client::Server;
pub use drift::Drift;
pub use fleet::{Builder, Fleet};
pub use ledger::{Ledger, LedgerLine};
pub use misbehave::Misbehaviour;
pub use settings::Settings;
pub use verdict::{Scope, Snapshots, StoredLine, Verdict};
