//! Journeys through the whole of Ostiary. Run them by script/test, which starts what they need.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, which fails where it stands"
)]

mod alerts;
mod broken_restores;
mod carves;
mod configs;
mod crashes;
mod deciding;
mod doorman;
mod end_to_end;
mod floors;
mod formats;
mod fuzzed;
mod identity;
mod live_queries;
mod no_pages;
mod osqueryd;
mod recordings;
mod restore;
mod rollouts;
mod rule_speed;
mod rules;
mod sinks;
mod troubles;
