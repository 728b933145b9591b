//! Nodes: [`mod@list`] and what is done to them, everything about one ([`mod@show`]), and why
//! its config is what it is ([`explain`]).

mod explain;
mod list;
mod show;
pub(crate) mod staleness;

pub(crate) use explain::config;
pub(crate) use list::{delete, disable, enable, list, rename, revoke_keys, tag, tag_many};
pub(crate) use show::{
    events, findings, health, live_queries, present, present_rows, show, status_logs,
};
pub(super) use show::{load, render};
