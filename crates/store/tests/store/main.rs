//! The store on a real Postgres, logged in with the roles of the processes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod grants;
mod keeping;
mod pending;
mod revisions;
