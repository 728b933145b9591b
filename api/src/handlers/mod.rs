//! One handler per endpoint: read, authenticate, decide, store, answer.

mod carve_continue;
mod carve_start;
mod config;
mod distributed_read;
mod distributed_write;
mod enroll;
mod log;
mod ready;
mod request;
mod unusable;

pub(crate) use carve_continue::carve_continue;
pub(crate) use carve_start::carve_start;
pub(crate) use config::config;
pub(crate) use distributed_read::distributed_read;
pub(crate) use distributed_write::distributed_write;
pub(crate) use enroll::{BadSecrets, enroll};
pub(crate) use log::log;
pub(crate) use ready::ready;
