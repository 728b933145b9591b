//! What every osquery since 1.x sends, case by case, through real TLS, a real api and a real worker, down to what is stored.
//!
//! A case is a file of `tests/fixtures/osquery/<version>/`; adding one is adding a file.

mod case;
pub(crate) mod flips;
mod journey;
mod sending;
