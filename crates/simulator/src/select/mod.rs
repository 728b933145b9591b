//! Enough of SELECT to answer fleets plausibly, without an SQL engine: which tables, which columns under
//! which names, joins on equal columns, simple comparisons. What it cannot read it leaves out, so that a
//! row too many is possible, a crash is not.

mod condition;
mod evaluate;
mod read;

pub use evaluate::{Source, select};
pub use read::tables_of;
