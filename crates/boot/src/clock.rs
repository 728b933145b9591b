//! The real clock, and ids made from it. The only place that asks what time it is.

use chrono::{DateTime, Utc};
pub use ostiary_domain::clock::Clock;
use uuid::Uuid;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A new UUIDv7.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may roll dice for an id"
)]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
