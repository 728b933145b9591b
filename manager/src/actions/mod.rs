//! What users can do: one function each. It takes a permit, validates, and makes the change and its audit entry in one transaction
//! (invariant I5). Pages, REST and commands call these and nothing else that writes.

pub mod account;
pub mod api_tokens;
mod audit;
pub mod backups;
pub mod carve_file;
pub mod carves;
pub mod config_change;
pub mod config_export;
pub mod config_import;
mod config_size;
pub mod decorators;
pub mod deliveries;
pub mod destinations;
pub mod enroll_secrets;
pub mod file_paths;
pub mod findings;
pub mod identity;
mod kept;
pub mod leftovers;
pub mod live_queries;
pub mod node_tables;
pub mod nodes;
pub mod options;
pub mod packs;
pub mod pager;
pub mod queries;
pub mod resync;
pub mod revisions;
pub mod rollouts;
pub mod rule_trial;
pub mod rules;
pub mod section_form;
pub mod sections;
pub mod sign_in;
pub(crate) mod sql_check;
pub mod starter_rules;
pub mod table_denials;
pub mod tags;
pub mod takeover;
pub mod silences;
pub mod unreadable;
pub mod users;
pub mod validate;

pub use sql_check::{LookedAtAll, SqlCheckers, look_at_all};
