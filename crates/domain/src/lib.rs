//! The words and decisions of Ostiary: what a node is, what it is asked, what its answers mean and when somebody hears of it.
//!
//! **Invariant I1:** nothing here does I/O, is async, asks the time or rolls dice. Functions take `now`; ids come from outside.
//!
//! A tour: [`osquery`] is the wire, verbatim. [`enrollment`] decides who a machine is, [`node_config`] what it is sent, by
//! [`target`]; [`live_query`] what it is asked besides, [`carve`] which files it may
//! hand over. What it reports is decoded by [`log`], freed of repetitions by
//! [`fingerprint`], kept as what holds now by [`present`] and judged by [`rule`], as is what Ostiary itself notes ([`fact`]); a match becomes a [`finding`].

pub mod alert_route;
pub mod carve;
pub mod clock;
pub mod cut_off;
pub mod enrollment;
pub mod fact;
pub mod finding;
pub mod fingerprint;
pub mod ids;
pub mod live_query;
pub mod log;
pub mod node;
pub mod node_config;
pub mod node_key_file;
pub mod osquery;
pub mod present;
pub mod revision;
pub mod rollout;
pub mod rule;
pub mod sink;
pub mod table_denial;
pub mod tag;
pub mod target;
