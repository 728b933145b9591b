//! What the operator does at the command line. `serve` is the default; the others change the database through the same actions as
//! the pages, and say so in the audit log.

mod backup;
mod command_line;
mod moving;
mod seed;

pub use command_line::main;
