//! Ostiary: queue.
