//! Carves after their last block: joined into one object of the storage, listed, explained, given up, deleted.

mod join;
mod listing;
mod upkeep;

pub(crate) use join::join_received;
pub(crate) use upkeep::{clear_left_over, delete_old, delete_orphans, explain, give_up};
