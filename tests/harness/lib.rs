//! The harness of the journeys: Ostiary's own programs as separate processes, a real Postgres and Redis, real TLS, a mail catcher.
//!
//! A [`World`] is one installation of its own: a database, a prefix in Redis, ports, certificates. Journeys speak to it as nodes
//! ([`Wire`], or a fleet of the simulator), as people (a browser) and as programs ([`Rest`]) do.

mod browser;
mod fleet;
mod forms;
mod receiver;
mod rest;
mod servers;
pub mod soak;
mod soak_faults;
mod stored;
mod verdict;
mod wire;
mod world;

pub use browser::run_browser;
pub use fleet::rule_of;
pub use forms::{Forms, Page};
pub use receiver::{Receiver, Reply};
pub use rest::Rest;
pub use servers::Servers;
pub use stored::{Stored, StoredExecution, StoredRow, StoredStatus, StoredTask};
pub use verdict::Verdict;
pub use wire::{Answer, Exchange, Wire, gzip};
pub use world::{Program, World, WorldOptions};

use std::time::{Duration, Instant};

/// How long anything may take that must happen in the end. Generous, for the machine may be busy, and costs nothing where all is well.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Asks again and again until there is an answer. Wait for the very thing that is asserted next: what is written separately may come
/// later.
///
/// # Panics
/// There is none within `patience`, usually [`PATIENCE`]; the message says what was waited for.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            begun.elapsed() < patience,
            "{what}: not within {} s",
            patience.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
