//! Ostiary: simulator.
