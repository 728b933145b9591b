//! Present rows: what holds now for one (node, query), and what an execution changes in it.
//!
//! `added` puts in, `removed` takes out, a snapshot replaces. The hard part is to know *full sets* from changes, since a
//! new query, a new epoch or a wiped osquery database sends all rows as `added`: the first set ever is a baseline and no
//! drift; a set that comes again drifts only where it differs from what we have. See [`PresentRows::apply`].

mod apply;
mod row_set;
mod stale;
#[cfg(test)]
mod tests;

pub use apply::{Change, FullSet, Keeping, Knowledge, PresentRows, Reporter, Series, Standing};
pub use row_set::{RowSet, RowSetError};
pub use stale::{Stale, asked_in, confirmed_since, stale};
