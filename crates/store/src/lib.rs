//! Ostiary: store.
