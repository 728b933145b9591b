//! The store on a real Postgres, logged in with the roles of the processes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod findings;
mod grants;
mod identity;
mod keeping;
mod live_queries;
mod pending;
mod restored;
mod revisions;
mod rule_values;
mod sinks;
mod tags_given;
mod unreadable;

/// The time by this machine, for rows whose time does not matter.
#[expect(
    clippy::disallowed_methods,
    reason = "time is an argument of what is tested; a test has to take it from somewhere"
)]
fn machine_time() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
