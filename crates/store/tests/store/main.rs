//! The store on a real Postgres, logged in with the roles of the processes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod grants;
mod identity;
mod keeping;
mod live_queries;
mod pending;
mod revisions;
mod unreadable;
