//! Moving staged roll-outs on, as part of the sweep: who has taken the change up, who is in trouble, and what follows from it. The
//! decision itself is `domain::rollout`'s.

mod advance;
mod look;

pub(crate) use advance::{advance, prune};
