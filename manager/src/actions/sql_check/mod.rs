//! Whether SQL may be given to nodes: every action that saves SQL asks here first, whatever kind of thing the SQL belongs to.
//!
//! **Invariant:** nothing is ever run. How SQL is read is decided by the crate `ostiary_sql_check`, whom it may reach by
//! `domain::table_denial`; what a form does with the answer is decided by the form's action.

mod all;
mod check;
mod knowledge;
mod said;

pub use all::{LookedAtAll, look_at_all};
pub(crate) use check::{
    Looked, SqlKind, SqlProblem, SqlUse, check_sql, check_sql_among, look, look_for_nodes,
};
pub use knowledge::SqlCheckers;
pub(crate) use knowledge::{Brought, odd_tables};
pub(crate) use said::{StoredSql, problems_of, said_of};
