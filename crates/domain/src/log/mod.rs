//! Logs: from the lines of a post to executions of queries and status lines, whatever the version and format.
//!
//! The envelope was split in [`crate::osquery`]; which lines were seen before is told by [`crate::fingerprint`]; what the
//! rows change is decided in [`crate::present`]. **Invariant:** a line that cannot be understood becomes [`Unreadable`]
//! and never costs its neighbours.

mod action;
mod decode;
mod execution;
mod legacy_text;
mod result_line;
mod status_line;
#[cfg(test)]
mod tests;
mod times;

pub use action::Action;
pub use decode::{DecodedPost, Receipt, Unreadable, UnreadableReason, decode, split_lines};
pub use execution::{Execution, Kind, Row};
pub use status_line::StatusLine;
