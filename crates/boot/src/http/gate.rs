//! Keeps hyper from answering by itself.
//!
//! hyper answers a request that it cannot parse with an empty body (400, 414, 431), and osqueryd takes every empty body for a
//! success: it would delete its logs, or drop its whole schedule (`osquery/remote/transports/tls.cpp::sendRequest` looks at no
//! status). The same holds for the interim `100 Continue`. So bytes only pass from the moment the router has answered until that
//! answer is written; what hyper writes at any other time is swallowed, and hyper, which has given up by then, closes the socket.
//!
//! **Invariant:** no byte leaves that is not part of an answer of the router.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const OPEN_TO_FLUSH: u8 = 2;
const OPEN_FOR_LAST: u8 = 3;

/// Held by the service of a connection: opens the gate for an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Key(Arc<AtomicU8>);

impl Key {
    /// The router has answered. After the `last` answer hyper parses nothing more on this connection.
    pub(super) fn open(&self, last: bool) {
        self.0
            .store(if last { OPEN_FOR_LAST } else { OPEN }, Ordering::Relaxed);
    }

    /// hyper has taken the whole answer: the next flush is its end.
    fn answer_ended(&self) {
        let _ = self
            .0
            .compare_exchange(OPEN, OPEN_TO_FLUSH, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The body of an answer. hyper drops it when it has taken its last frame, before it flushes that one.
pub(super) struct AnswerBody {
    body: axum::body::Body,
    key: Key,
}

impl AnswerBody {
    pub(super) fn new(body: axum::body::Body, key: Key) -> Self {
        Self { body, key }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.key.answer_ended();
    }
}

/// A connection whose outward direction is shut unless an answer is due.
///
/// hyper writes an answer, flushing in between when it is long, drops its body ([`AnswerBody`]) and flushes; that flush shuts the gate.
/// A socket that takes no more must not blur that boundary on a connection that goes on, so what it does not take is kept in `backlog`.
pub(super) struct Gate<S> {
    socket: S,
    state: Arc<AtomicU8>,
    backlog: BytesMut,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Gate<S> {
    /// A shut gate. A client that takes nothing for `patience` loses its connection.
    pub(super) fn new(socket: S, patience: Duration) -> (Self, Key) {
        let key = Key::default();
        let gate = Self {
            socket,
            state: key.0.clone(),
            backlog: BytesMut::new(),
            patience,
            stalled: None,
        };
        (gate, key)
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.backlog.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(cx, &self.backlog);
            match ready!(self.watch(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.backlog.advance(taken),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Starts the clock when the socket takes nothing, and stops it when it does.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let deadline = Instant::now() + self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read its answer",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match this.state.load(Ordering::Relaxed) {
            SHUT => Poll::Ready(Ok(bytes.len())),
            OPEN_FOR_LAST if this.backlog.is_empty() => {
                let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
                this.watch(cx, written)
            }
            _ => {
                let drained = this.drain(cx)?;
                let taken = match drained {
                    Poll::Ready(()) => match Pin::new(&mut this.socket).poll_write(cx, bytes)? {
                        Poll::Ready(taken) => taken,
                        Poll::Pending => 0,
                    },
                    Poll::Pending => 0,
                };
                this.backlog.extend_from_slice(&bytes[taken..]);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state.load(Ordering::Relaxed) == OPEN_TO_FLUSH {
            this.state.store(SHUT, Ordering::Relaxed);
        }
        ready!(this.drain(cx))?;
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.drain(cx))?;
        let shut = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.watch(cx, shut)
    }
}
