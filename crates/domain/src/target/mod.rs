//! Targets: which nodes a thing applies to, as one expression over tags and vitals.
//!
//! ```text
//! prod and linux and not database
//! (lab or staging) and platform:darwin
//! ```
//!
//! A bare word is a tag. `platform:linux`, `host:web-*` (host name or host identifier, `*` as wildcard, case-insensitive) and
//! `tag:x` are said with their field. `*` and the empty text mean every node, `none` no node. `not` binds tighter than `and`, `and`
//! tighter than `or`; words are compared without regard to case. A word with other characters than letters, digits and `-_.:/@*`
//! stands in double quotes.

mod expression;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use expression::wildcard;
pub use expression::{Target, TargetText};
pub use parse::ParseError;
