//! Moving in: nodes of another manager come with their node keys and go on as if nothing had happened.
//!
//! `nodes` decides what becomes of each of them, whoever knew them; `node_keys` reads them from CSV, `doorman` from Doorman's database
//! along with packs, queries, file paths, rules and users.
//!
//! **Invariant:** a key is hashed as it is read. It is in no report, no upload that is kept, no log and no audit entry.

mod doorman;
mod doorman_names;
mod doorman_rules;
mod node_keys;
mod nodes;

pub use doorman::{DoormanImport, apply_doorman, plan_doorman};
pub(super) use doorman_names::pack_name;
pub use node_keys::{
    KeyFile, apply_kept_keys, apply_keys, dry_run_keys, keep_keys, report_of_kept_keys,
};
