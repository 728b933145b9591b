//! What each node did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Live counters of one node.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub(crate) $name: AtomicU64),* }

        /// The counters at a moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// The counters now.
            pub fn now(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }

        impl std::ops::AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Node keys that were given.
    enrollments,
    /// Enrollments that gave no key.
    enrollments_refused,
    /// Requests, silent repetitions not counted.
    posts,
    /// Requests that the client took for failed.
    failures,
    /// Of these, answers with `node_invalid: true`.
    node_invalid,
    /// Configs that were taken and differed from the one before.
    configs_changed,
    /// Answers that the etag of the config in force still holds.
    configs_unchanged,
    /// Runs of scheduled queries.
    queries_run,
    /// Live queries that were executed.
    live_queries_run,
    /// Lines that were written into the buffer.
    lines_made,
    /// Lines that were posted at least once.
    lines_sent,
    /// Lines that were deleted after a success.
    lines_deleted,
    /// Blocks of carves that the server took although it must not.
    rubbish_taken,
    /// Lines that were lost on the node: too long, purged, or wiped.
    lines_lost,
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
