//! The api over real sockets: what nodes do, and every trouble they may have.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod carves;
mod distributed;
mod endpoints;
mod etag;
mod identity;
mod moving;
mod support;
mod tls;
mod troubles;
mod unusable;
