//! Carves: files that a node archives and uploads in blocks. Which are taken, when one is whole, what its archive may say.
//!
//! What nodes say about them on the wire is in [`crate::osquery`]; where the bytes lie is the business of others.

mod archive;
mod limits;
mod request;
mod shape;

pub use archive::{ArchiveFormat, entry_path, shown_path};
pub use limits::{BlockRefusal, CarveOptions, CarveUse, Refusal, decide, why_not};
pub use request::{CarveRow, carve_row, sql_for_path};
pub use shape::Shape;
