//! The api: what osqueryd talks to. It authenticates, bounds, stores and answers; what a log line means is the worker's business.
//!
//! A tour: [`router`] names the endpoints; a handler reads its body by [`body`], knows its node by `known_nodes`, and answers or
//! fails by [`error`], the only way to fail. `ingest` commits posts in groups, `configs` and `live_queries` keep in memory what nodes
//! ask for, `freshness` keeps all that up to date, `checkins` notes who was heard of.
//!
//! **Invariant I3:** an answer that osqueryd reads as success means "durably stored"; every failure has a body that it takes for one.

pub mod aliases;
pub mod app;
pub mod body;
mod certificates;
mod checkins;
mod configs;
pub mod error;
mod fragments;
mod freshness;
mod handlers;
mod ingest;
mod known_nodes;
pub mod limits;
mod live_queries;
mod log_body;
mod oversized;
pub mod router;
pub mod serve;
pub mod settings;

pub use app::App;
pub use error::Error;
pub use serve::{Running, serve, start};
pub use settings::Settings;
