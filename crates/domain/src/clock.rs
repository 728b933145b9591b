//! Time as an argument. Functions of this crate take `now`; whoever needs to ask holds a [`Clock`].

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};

/// Something that knows what time it is.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment.
    fn now(&self) -> DateTime<Utc>;
}

/// A clock for tests: it stands still until it is told to move.
#[derive(Debug)]
pub struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn at(at: DateTime<Utc>) -> Self {
        Self(Mutex::new(at))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: TimeDelta) {
        *self
            .0
            .lock()
            .expect("nothing panics while it holds this lock") += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self
            .0
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}
