//! Ostiary: manager.
