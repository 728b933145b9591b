//! REST under `/api/v1`, by bearer token: the second thin shell. Lists are `{"items": [...], "next": null | "..."}`; `next` goes into
//! `after` of the next request. Times are RFC 3339 in UTC, errors problem JSON (RFC 9457).

pub(crate) mod carves;
pub(crate) mod certificates;
pub(crate) mod config;
mod confirmed;
pub(crate) mod deliveries;
pub(crate) mod destinations;
pub(crate) mod findings;
pub(crate) mod hooks;
pub(crate) mod identity;
mod listing;
pub(crate) mod live_queries;
pub(crate) mod nodes;
pub(crate) mod resync;
pub(crate) mod revisions;
pub(crate) mod rollouts;
pub(crate) mod rules;
pub(crate) mod silences;
pub(crate) mod sinks;
pub(crate) mod unreadable;

pub(crate) use confirmed::Confirmed;
pub(crate) use listing::{Asked, Paging, listed, not_found};
