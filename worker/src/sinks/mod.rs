//! Sinks: what was stored is forwarded, by each sink in its own time. [`run()`] sees to it that every sink is run by one worker,
//! [`turn`] does one round of one sink, [`lines`] makes lines out of rows, [`deliver`] finds the line that spoils a batch.
//!
//! **Invariant:** a cursor moves only after its lines were taken, in a transaction that holds the sink. So nothing is left out; after a
//! kill the last batch comes again, and nothing else does.

mod deliver;
mod lines;
mod run;
mod turn;

pub(crate) use run::{forward_all, run};
