//! Postgres: everything that is remembered, and the only SQL of the house.
//!
//! **Invariant I2:** only this crate names sqlx. Functions are free and take a connection (`&mut Conn`); the caller owns the
//! transaction, so any two of them compose. Row structs stay private; what comes out are words of `ostiary_domain`.
//!
//! No outbound call is made while a transaction is open (invariant I7).

mod db;
mod error;
pub mod page;
#[cfg(feature = "testing")]
pub mod testing;

pub use db::{Conn, Db, Generations, MIGRATIONS, Options, Tx, generations};
pub use error::{Error, Result};
