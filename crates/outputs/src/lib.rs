//! Ostiary: outputs.
