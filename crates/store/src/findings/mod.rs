//! Findings as they live: opened and counted, decided by people or by their rule, told, and forgotten. People read them through
//! `finding_lists`.
//!
//! **Order of locks**, so that workers and people never wait for each other in a circle: nodes, then findings of nodes by rule, node and
//! entity, then the rule's row, then the finding of the fleet.

mod deciding;
mod entries;
mod opening;
mod recovering;
mod retaining;
pub mod storm_samples;
pub mod storms;
mod telling;

pub use deciding::{Decision, Stated, comment, decide, list_told_members};
pub use entries::{By, Entry, EntryKind, insert_entry};
pub use opening::{LATEST_KEPT, Match, Matched, Upserted, upsert};
pub use recovering::{Recovery, recover};
pub use retaining::{delete_old, delete_old_silences, unsilence};
pub use telling::{FollowUp, follow_up};
