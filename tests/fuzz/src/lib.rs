//! What script/fuzz runs: each decoder of hostile bytes as a function that panics when the decoder breaks a promise.

pub mod decoders;
pub mod seeds;
