//! What matches lead to: findings are opened and counted, ended by their rule, and told, unless they are silenced or a storm takes them
//! in. All in the transaction of the group; what is judged is decided elsewhere ([`crate::judging`]).

mod alert_body;
mod opening;
mod recovery;
mod routing;
mod silences;
mod storms;

pub(crate) use opening::Opener;
pub(crate) use recovery::{Recovery, recover};
pub(crate) use storms::look_after_storms;
