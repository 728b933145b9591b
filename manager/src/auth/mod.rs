//! Who asks, and what they may do: passwords, sessions, tokens, CSRF, permits.

mod address;
mod csrf;
mod password;
mod permit;
mod session;
mod session_store;
mod token;

pub use address::Address;
pub use csrf::guard;
pub use password::{hash_password, verify_password};
pub use permit::{Actor, Admin, Edit, Permit, Right, Role, RunLiveQuery, TakeFiles, View};
pub use session::{Flash, Visitor, identify, token_of};
pub use session_store::PostgresSessions;
pub use token::{hash_token, identify_by_token};
