//! The worker on a real Postgres, logged in with its own role, stepped by hand and without Redis unless a test says so.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod carves;
mod dead_man;
mod drift;
mod facts;
mod many_rules;
mod posts;
mod quiet;
mod rollouts;
mod routing;
mod running;
mod sinks;
mod standing;
mod support;
mod trouble;
mod watches;
