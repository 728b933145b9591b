//! The accept loop against raw sockets: what hyper would say by itself never leaves, and what the router says always does.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::body::Frame;
use ostiary_boot::http::{Listener, Options, Peer, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take that must happen in the end. Generous, for the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);
const LARGE: usize = 8 << 20;
const FRAME: usize = 1 << 10;

fn router() -> Router {
    Router::new()
        .route("/echo", post(async |body: String| body))
        .route("/large", get(async || "x".repeat(LARGE)))
        .route("/long", get(async || Body::new(Drip(30))))
        .route(
            "/last",
            get(async || ([(header::CONNECTION, "close")], "x".repeat(LARGE)).into_response()),
        )
        .route(
            "/peer",
            get(async |request: Request| {
                let peer = request.extensions().get::<Peer>().cloned();
                format!(
                    "{}",
                    peer.is_some_and(
                        |peer| peer.address.ip().is_loopback() && peer.certificate.is_none()
                    )
                )
            }),
        )
}

/// A body of this many frames, none of which is there when it is first asked for, so that the server flushes in between.
struct Drip(usize);

impl hyper::body::Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 -= 1;
        if self.0.is_multiple_of(2) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = Frame::data(Bytes::from("x".repeat(FRAME)));
        Poll::Ready((self.0 > 1).then_some(Ok(frame)))
    }
}

/// A body without end, which tells when it is thrown away.
struct Endless(#[expect(dead_code, reason = "it is for its drop")] DropGuard);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Frame::data(Bytes::from("x".repeat(FRAME)));
        Poll::Ready(Some(Ok(frame)))
    }
}

async fn start(options: Options) -> (SocketAddr, CancellationToken) {
    start_with(router(), options).await
}

async fn start_with(router: Router, options: Options) -> (SocketAddr, CancellationToken) {
    let listener = Listener::plain("127.0.0.1:0".parse().unwrap(), &[])
        .await
        .unwrap();
    let address = listener.address().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, router, options, shutdown.clone()));
    (address, shutdown)
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer))
        .await
        .expect("it ends");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_cannot_be_parsed_is_not_answered() {
    let (address, _shutdown) = start(Options::default()).await;
    for bytes in [
        "x\r\n\r\n",
        "GET /peer HTTP/1.1\r\nbad\r\n\r\n",
        &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(66_000)),
    ] {
        assert_eq!(raw(address, bytes.as_bytes()).await, "");
    }
}

#[tokio::test]
async fn behind_a_large_answer_that_nobody_reads_yet_a_bad_request_is_not_answered_either() {
    let (address, _shutdown) = start(Options::default()).await;
    // The socket's buffers are full long before the answer is written, so both lie in the same queue.
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket
        .write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\nbad\r\n\r\n")
        .await
        .unwrap();
    let peer = raw(
        address,
        b"GET /peer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        peer.ends_with("true"),
        "others are served meanwhile: {peer}"
    );
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    assert_eq!(
        answer.len() - body,
        LARGE,
        "the whole answer and not a byte more"
    );
}

#[tokio::test]
async fn an_answer_of_many_frames_arrives_whole_and_a_bad_request_behind_it_is_not_answered() {
    let (address, _shutdown) = start(Options::default()).await;
    let answer = raw(
        address,
        b"GET /long HTTP/1.1\r\nHost: h\r\n\r\nGET /long HTTP/1.1\r\nHost: h\r\n\r\nbad\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert_eq!(answer.matches('x').count(), 2 * 14 * FRAME);
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_large_last_answer_arrives_whole() {
    let (address, _shutdown) = start(Options::default()).await;
    let answer = raw(address, b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(answer.len() - answer.find("\r\n\r\n").unwrap() - 4, LARGE);
}

#[tokio::test]
async fn no_interim_answer_is_ever_sent() {
    let (address, _shutdown) = start(Options::default()).await;
    let request =
        "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}";
    let answer = raw(address, request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 417") && answer.contains("refused: "),
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_loses_its_connection() {
    let given_up = CancellationToken::new();
    let told = given_up.clone();
    let endless = move || {
        let body = Endless(told.clone().drop_guard());
        async { Body::new(body) }
    };
    let options = Options {
        write_timeout_seconds: 1,
        ..Options::default()
    };
    let router = Router::new().route("/endless", get(endless));
    let (address, _shutdown) = start_with(router, options).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket
        .write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, given_up.cancelled())
        .await
        .expect("the answer is thrown away");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer))
        .await
        .expect("the connection has ended");
}

#[tokio::test]
async fn idle_connections_do_not_outlive_their_time_nor_the_server() {
    let (address, shutdown) = start(Options {
        header_timeout_seconds: 4,
        ..Options::default()
    })
    .await;
    assert_eq!(raw(address, b"").await, "", "it said nothing for seconds");
    let kept = raw(address, b"GET /peer HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(kept.ends_with("true"), "{kept}");
    let mut idle = TcpStream::connect(address).await.unwrap();
    shutdown.cancel();
    let mut nothing = Vec::new();
    // It ends, or is reset when it was not even accepted.
    let _ = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut nothing))
        .await
        .expect("it is closed");
    assert!(nothing.is_empty());
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}
