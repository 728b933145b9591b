//! Pages: forms and HTML, one module per noun. They read the store, call actions, and fill templates; `templates/README.md` is the
//! contract of URLs, contexts and fields. No SQL, no rule and no HTML lives here.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod carves;
pub(crate) mod certificates;
pub(crate) mod config_import;
pub(crate) mod decorators;
pub(crate) mod deliveries;
pub(crate) mod destinations;
pub(crate) mod enroll;
pub(crate) mod enroll_secrets;
pub(crate) mod entries;
pub(crate) mod errors;
mod fields;
pub(crate) mod file_paths;
pub(crate) mod findings;
pub(crate) mod identity;
pub(crate) mod live_queries;
pub(crate) mod live_query_view;
pub(crate) mod node_keys;
pub(crate) mod nodes;
pub(crate) mod options;
pub(crate) mod overview;
pub(crate) mod packs;
mod paging;
pub(crate) mod queries;
mod reach;
pub(crate) mod resync;
pub(crate) mod revisions;
pub(crate) mod rollouts;
pub(crate) mod rules;
pub(crate) mod sections;
mod shell;
pub(crate) mod sign_in;
pub(crate) mod silences;
pub(crate) mod sinks;
pub(crate) mod sql_check;
mod table;
pub(crate) mod table_denials;
pub(crate) mod tags;
pub(crate) mod tokens;
pub(crate) mod unreadable;
pub(crate) mod users;

pub(crate) use fields::Fields;
