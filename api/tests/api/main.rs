//! The api over real sockets: what nodes do, and every trouble they may have.

mod endpoints;
mod support;
mod tls;
mod troubles;
