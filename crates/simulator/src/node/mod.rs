//! One simulated osqueryd: its state, its threads, and what they do.

mod carver_thread;
mod config_thread;
mod distributed_thread;
mod enrollment;
mod logger_thread;
mod scheduler_thread;
mod state;

pub(crate) use state::Node;
