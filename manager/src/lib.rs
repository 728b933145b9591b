//! The manager: pages and REST for people.
//!
//! `pages` (forms and HTML) and `rest` (JSON) are two thin shells over [`actions`], one function per thing that a user can do:
//! it takes a [`auth::Permit`], validates, and makes the change with its audit entry in one transaction (invariant I5). Who asks is
//! found out in [`auth`]; how a page looks lies in `templates/` and is filled by [`views`]. Nodes never talk to this process.

pub mod actions;
pub mod assets;
pub mod auth;
mod certificates;
pub mod commands;
pub mod error;
mod operations;
mod pages;
mod rest;
pub mod router;
mod serve;
pub mod settings;
pub mod state;
pub mod views;

pub use serve::serve;
