//! Connections of sinks that hold a conversation of their own, encrypted or not.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::SendError;

/// A connection, by TLS or in the clear.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// What is said of a connection that broke.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
pub(crate) fn broken(error: std::io::Error) -> SendError {
    SendError::retry(format!("the connection broke: {error}"))
}
