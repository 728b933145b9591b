//! Enrollment: who a machine is that asks for a node key.
//!
//! Whoever holds the fleet's secret can claim to be any machine, and cloned machines share their hardware's identifiers. So a live
//! node is never handed over, a host name alone proves nothing, and where two nodes fit alike nobody is chosen.
//!
//! **Invariant:** no decision takes a key away. The worst that a wrong one does is one node too many, which people merge.

mod arrival;
mod claim;
mod decide;
mod joined;
#[cfg(test)]
mod tests;

pub use arrival::{Arrival, Lookalike, arrive};
pub use claim::{Approval, Candidate, Claim, Conflict, Decision, Reason, Standing};
pub use decide::{ALIVE_FOR, RACE_GRACE, decide};
pub use joined::Joined;
