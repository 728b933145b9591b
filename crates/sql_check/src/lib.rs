//! Whether SQL fits osquery: SQLite's own parser (`prepare`) over empty tables that are those of osquery. Nothing is ever run.
//!
//! A [`Checker`] is made of [`Extras`] (tables that nodes reported, automatic tables and views of the config) and keeps a small
//! database in memory for each set of platforms that is asked about. It knows nothing of nodes, targets, forms or Postgres: who is
//! denied which table is decided by its caller and comes in with the [`Question`].
//!
//! The facts about tables stand in `data/tables.tsv`, those about functions, collations and what its authorizer permits in
//! `functions` and `database`; all are osquery's own.

mod check;
mod database;
mod functions;
mod meaning;
mod platform;
mod schema;
mod suggest;
mod words;

pub use check::{Checked, Checker, MAX_SQL_BYTES, Position, Problem, Question};
pub use database::{Column, Extras, Odd, Table, View};
pub use platform::Platforms;
pub use schema::{is_shipped, shipped_tables};
pub use words::{is_one_statement, statement};
