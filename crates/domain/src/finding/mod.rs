//! Findings: how bad a matter is, which matter a match belongs to, the states it goes through, who is not told, and when very many are
//! one.
//!
//! A finding is one open matter per (rule, node, entity). Opening and counting them is the store's, telling of them the
//! outputs'.

mod counterpart;
mod entity;
mod severity;
mod silence;
mod state;
mod storm;

pub use counterpart::counterpart;
pub use entity::Entity;
pub use severity::Severity;
pub use silence::Silence;
pub use state::FindingState;
pub use storm::StormLimits;
