//! The front door: an accept loop of our own, over TLS or plain, that serves an [`axum::Router`].
//!
//! It is hand-rolled for what a ready-made server does not give: a cap on connections, time-outs of every phase, the client's
//! certificate in the request, and above all silence where hyper would answer by itself (see [`gate`]). What is answered is decided
//! by the router, never here; the one exception is `Expect`, which must not reach hyper.

mod body;
mod gate;
mod peer;
mod serve;

pub use body::BodyTimedOut;
pub use peer::{ClientCertificate, Peer, client_ip};
pub use serve::{Listener, Options, serve};
