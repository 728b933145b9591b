//! The queue: doorbells and hints on Redis. The only crate that names Redis.
//!
//! Postgres is the truth and Redis a bell that may be lost: a job carries a version and an id, never data,
//! and whatever is lost here is found again by the worker's sweep. So nothing in this crate is ever worth
//! waiting for ([`Options::timeout_ms`]), a job makes one attempt, and what to do after a failure (attempts,
//! back-off, the dead state) is decided by Postgres, which must count an attempt *before* the work begins.
//!
//! - [`jobs`]: the payloads. - [`queue`]: the handle that rings. - [`backend`]: what apalis takes jobs from.
//! - [`signals`]: hints for live pages. - `leases` and `scripts` are what the backend is made of.
//!
//! **Invariant:** a bell rung while its twin is being worked leads to another look, begun after the ring.
//!
//! ```no_run
//! use std::time::Duration;
//! use apalis::prelude::Monitor;
//! use ostiary_queue::{JobError, Options, Queue, jobs::BatchesStored};
//!
//! async fn process_batches(job: BatchesStored) -> Result<(), JobError> {
//!     println!("something is pending; shard {}", job.shard);
//!     Ok(())
//! }
//!
//! # async fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
//! let queue = Queue::connect(options)?;
//! queue.ring(&BatchesStored::for_pending(42)).await?;
//!
//! Monitor::new()
//!     .register(move |_| {
//!         // Arguments: a name for the logs, how many at once, how long one may take.
//!         queue.worker::<BatchesStored>("process_batches", 4, Duration::from_secs(60)).build(process_batches)
//!     })
//!     .should_restart(|_, _| true)
//!     .run()
//!     .await?;
//! # Ok(()) }
//! ```

pub mod backend;
pub mod error;
pub mod jobs;
mod leases;
pub mod queue;
mod scripts;
pub mod signals;

pub use backend::Backend;
pub use error::{Error, JobError, Result};
pub use jobs::Job;
pub use queue::{Depth, Options, Queue};
pub use signals::{Signals, Subscription};
