//! Accepting connections and serving the router on each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::body::TimedBody;
use super::gate::{AnswerBody, Gate, Key};
use super::peer::{ClientCertificate, Peer};
use crate::tls;
use crate::trials::Trials;

/// Limits of a listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Connections at once; beyond them a new socket is closed at once, which every client takes for a failure.
    pub max_connections: usize,
    /// Seconds for the TLS hand-shake.
    pub handshake_timeout_seconds: u64,
    /// Seconds until the head of a request must be there, counted from the connection's start or from the answer before; so it is
    /// also how long an idle connection is kept.
    pub header_timeout_seconds: u64,
    /// Seconds until the body must be there. osqueryd itself gives up after 16 s.
    pub body_timeout_seconds: u64,
    /// Seconds a client may refuse to read its answer.
    pub write_timeout_seconds: u64,
    /// Seconds that requests under way are given when the process stops.
    pub drain_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            handshake_timeout_seconds: 10,
            header_timeout_seconds: 10,
            body_timeout_seconds: 25,
            write_timeout_seconds: 20,
            drain_seconds: 20,
        }
    }
}

/// A bound socket and how it is spoken on.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    trials: Option<Arc<Trials>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("socket", &self.socket)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl Listener {
    /// Binds a socket for TLS.
    ///
    /// # Errors
    /// The address is not free or not ours.
    pub async fn tls(
        address: SocketAddr,
        config: Arc<rustls::ServerConfig>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            socket: bind(address).await?,
            tls: Some(config),
            trials: None,
        })
    }

    /// Shows some connections the certificate on trial.
    #[must_use]
    pub fn with_trials(mut self, trials: Arc<Trials>) -> Self {
        self.trials = Some(trials);
        self
    }

    /// Binds a socket without TLS, for use behind a proxy.
    ///
    /// # Errors
    /// The address is not free; or it can be reached from other machines while no trusted proxy is named: then secrets would cross
    /// the network in the clear.
    pub async fn plain(address: SocketAddr, trusted_proxies: &[IpNet]) -> anyhow::Result<Self> {
        ensure!(
            address.ip().is_loopback() || !trusted_proxies.is_empty(),
            "{address} is not a loopback address: a listener without TLS needs trusted_proxies to be named"
        );
        Ok(Self {
            socket: bind(address).await?,
            tls: None,
            trials: None,
        })
    }

    /// Where it listens; tells the port that was chosen for port 0.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// What all connections of a listener share.
struct Door {
    router: Router,
    options: Options,
    trials: Option<Arc<Trials>>,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`, then lets requests under way end. Idle connections are closed at once.
///
/// A request finds [`Peer`] and [`ConnectInfo`] in its extensions.
pub async fn serve(
    listener: Listener,
    router: Router,
    options: Options,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let drain = Duration::from_secs(options.drain_seconds);
    let acceptor = listener.tls.map(TlsAcceptor::from);
    let door = Arc::new(Door {
        router,
        options,
        trials: listener.trials,
        shutdown: shutdown.clone(),
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.socket.accept() => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually no file descriptors are left: nothing helps but to wait for some.
                tracing::warn!(%error, "cannot accept a connection");
                let _ =
                    tokio::time::timeout(Duration::from_millis(100), shutdown.cancelled()).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics::counter!("ostiary_connections_refused_total").increment(1);
            continue;
        };
        connections.spawn(connection(
            Arc::clone(&door),
            acceptor.clone(),
            socket,
            address,
            slot,
        ));
    }
    drop(listener.socket);
    connections.close();
    if tokio::time::timeout(drain, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "connections are cut off: they did not end in time"
        );
    }
}

async fn connection(
    door: Arc<Door>,
    acceptor: Option<TlsAcceptor>,
    socket: TcpStream,
    address: SocketAddr,
    _slot: OwnedSemaphorePermit,
) {
    let open = metrics::gauge!("ostiary_connections_open");
    open.increment(1);
    let _ = socket.set_nodelay(true);
    match acceptor {
        None => {
            let peer = Peer {
                address,
                certificate: None,
                accepted: None,
            };
            serve_requests(&door, socket, peer).await;
        }
        Some(acceptor) => {
            let trials = door.trials.as_ref();
            let on_trial = trials.is_some_and(|trials| trials.begin(address.ip()));
            let limit = Duration::from_secs(door.options.handshake_timeout_seconds);
            match tokio::time::timeout(limit, tls::accept(&acceptor, socket, on_trial)).await {
                Ok((Ok(stream), accepted)) => {
                    let certificate = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .and_then(<[_]>::first)
                        .map(ClientCertificate::of);
                    let peer = Peer {
                        address,
                        certificate: certificate.map(Arc::new),
                        accepted,
                    };
                    serve_requests(&door, stream, peer).await;
                }
                Ok((Err(error), shown)) => {
                    metrics::counter!("ostiary_tls_handshakes_failed_total").increment(1);
                    if let (true, Some(trials), Some(shown)) = (on_trial, trials, shown) {
                        trials.note_failure(address.ip(), shown, &error);
                    }
                    tracing::debug!(peer = %address, %error, "TLS hand-shake failed");
                }
                Err(_) => {
                    metrics::counter!("ostiary_tls_handshakes_failed_total").increment(1);
                    tracing::debug!(peer = %address, "TLS hand-shake took too long");
                }
            }
        }
    }
    open.decrement(1);
}

async fn serve_requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    door: &Door,
    stream: S,
    peer: Peer,
) {
    let (gate, key) = Gate::new(
        stream,
        Duration::from_secs(door.options.write_timeout_seconds),
    );
    let body_limit = Duration::from_secs(door.options.body_timeout_seconds);
    let address = peer.address;
    let service = service_fn(move |request| {
        answer(
            door.router.clone(),
            request,
            peer.clone(),
            body_limit,
            key.clone(),
        )
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(door.options.header_timeout_seconds))
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(gate), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = door.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients that leave without a word are the rule, not an error.
        tracing::debug!(peer = %address, %error, "connection ended early");
    }
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: Peer,
    body_limit: Duration,
    key: Key,
) -> Result<Response<AnswerBody>, Infallible> {
    let response = if request.headers().contains_key(header::EXPECT) {
        // hyper would send an interim answer without a body as soon as the body is asked for.
        expectation_failed()
    } else {
        let mut request =
            request.map(|body| axum::body::Body::new(TimedBody::new(body, body_limit)));
        request.extensions_mut().insert(ConnectInfo(peer.address));
        request.extensions_mut().insert(peer);
        router.call(request).await?
    };
    let last = response
        .headers()
        .get(header::CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    key.open(last);
    Ok(response.map(|body| AnswerBody::new(body, key)))
}

fn expectation_failed() -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::from(
        // No JSON: also where osqueryd takes any JSON for a success.
        "refused: the header Expect is not supported\n",
    ));
    *response.status_mut() = StatusCode::EXPECTATION_FAILED;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
