//! The manager process.
fn main() {}
