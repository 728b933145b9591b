//! Ostiary: domain.
