//! Ostiary: boot.
