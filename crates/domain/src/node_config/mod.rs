//! The config of a node: packs, queries, file paths, options, decorators and other sections by target, as osquery's JSON.
//!
//! A snapshot of everything that an admin set is a [`Parts`]; a node's share of it is a [`Selection`]; what it is sent is a
//! [`Document`], written out as a [`Written`].
//!
//! **Invariant:** the same parts give the same bytes. A node hashes what it gets and tears its whole schedule down and up when a
//! byte differs (`osquery/config/config.cpp::updateSource`), so nothing here may depend on the order of rows or of a hash map.
//!
//! **Invariant:** no document exceeds [`MAX_BYTES`] nor [`MAX_DEPTH`]. A node that gets such a one has already dropped its schedule
//! when it refuses.

mod assemble;
pub mod conditions;
mod document;
mod explain;
pub mod flags;
mod heeded;
mod leftover;
mod limits;
mod parts;
pub mod section;
pub mod section_check;
mod select;
mod withhold;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use assemble::PACK_DELIMITER;
pub use document::{
    Document, MAX_BYTES, MAX_DEPTH, Written, config_hash, depth, is_run_by, to_bytes,
};
pub use explain::{Contribution, Difference, Fate, differences};
pub use limits::TooMuch;
pub use parts::{
    ConfigOption, Decorator, DecoratorMoment, FilePath, Leftover, LeftoverKind, Pack, Parts, Query,
    Section,
};
pub use select::{Selection, Selector, VersionFamily};
pub use withhold::{Kept, SqlPlace, TablesOfSql};
