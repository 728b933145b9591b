//! Ostiary: worker.
