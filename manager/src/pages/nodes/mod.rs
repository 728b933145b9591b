//! Nodes: [`mod@list`] and what is done to them, and everything about one ([`mod@show`]).

mod list;
mod show;

pub(crate) use list::{delete, disable, enable, list, rename, revoke_keys, tag, tag_many};
pub(crate) use show::{
    config, events, findings, health, live_queries, present, present_rows, show, status_logs,
};
