//! The manager's router on a real database, as the role that it has in production.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall say where"
)]

mod access;
mod carves;
mod changes;
mod configs;
mod denials;
mod destinations;
mod findings;
mod identity;
mod import_sql;
mod many;
mod moving;
mod pages;
mod rest;
mod rollouts;
mod rules;
mod sample;
mod section_forms;
mod sections;
mod sinks;
mod sql;
mod takeover;
mod unreadable;
mod world;
