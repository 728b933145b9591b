//! Ostiary: api.
