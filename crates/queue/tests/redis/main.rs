//! The queue against a real Redis, which the tests start, restart, freeze and flush themselves.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

mod outages;
mod ringing;
mod server;
mod signals;
mod workers;
