//! HTTP over TLS as osquery's client does it: a connection for each request, one deadline for all of it,
//! one silent repetition. What an answer means is judged in `answer`.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::version::Version;

/// One deadline covers connecting, hand-shake, upload, waiting and download, the repetition included.
pub const DEADLINE: Duration = Duration::from_secs(16);
const MAX_ANSWER: usize = 8 << 20;
const MAX_HEADER: usize = 8 << 10;

/// Where a fleet connects, and whom it trusts.
#[derive(Clone)]
pub struct Server {
    address: String,
    name: ServerName<'static>,
    host_header: String,
    modern: Arc<ClientConfig>,
    old: Arc<ClientConfig>,
}

impl Server {
    /// The server at `tls_hostname` (`host` or `host:port`, 443 if unsaid), trusted through the
    /// certificates in `ca_pem` and nothing else.
    ///
    /// # Errors
    /// When the name is none, or the PEM holds no certificate.
    pub fn new(tls_hostname: &str, ca_pem: &[u8]) -> anyhow::Result<Server> {
        let (host, port) = match tls_hostname.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().context("the port is no number")?),
            None => (tls_hostname, 443),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate.context("the CA file is no PEM")?)?;
        }
        if roots.is_empty() {
            bail!("the CA file holds no certificate");
        }
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| -> anyhow::Result<Arc<ClientConfig>> {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)?
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            // Each osquery connection has a context of its own, so nothing is ever resumed.
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        };
        Ok(Server {
            address: format!("{host}:{port}"),
            name: ServerName::try_from(host.to_owned()).context("the host is no name")?,
            host_header: if port == 443 {
                host.to_owned()
            } else {
                tls_hostname.to_owned()
            },
            modern: config(&[&rustls::version::TLS13, &rustls::version::TLS12])?,
            old: config(&[&rustls::version::TLS12])?,
        })
    }
}

/// What went wrong below HTTP's answers.
#[derive(Debug)]
pub enum Trouble {
    /// Nothing came within the deadline; not repeated silently.
    Timeout,
    /// Connecting, TLS or HTTP failed, also the second time.
    Network(anyhow::Error),
}

/// How often the client connected and repeated, over all threads of a node.
#[derive(Debug, Default)]
pub struct Traffic {
    /// TLS connections made.
    pub connections: AtomicU64,
    /// Requests that were silently sent again.
    pub silent_reposts: AtomicU64,
    /// Why the last request got no answer, to be shown to people.
    pub last_trouble: Mutex<Option<String>>,
}

/// A POST of one node.
#[derive(Debug, Clone)]
pub struct Post {
    /// The path.
    pub path: String,
    /// The JSON.
    pub body: Bytes,
    /// The key for `Authorization: NodeKey …`, where that is sent.
    pub authorization: Option<String>,
    /// Whether the body travels as gzip, which only log posts do.
    pub gzip: bool,
}

/// The HTTP client of one osquery thread. The socket of the last request stays open until the next one.
pub struct Client {
    server: Server,
    version: Version,
    reuse: bool,
    traffic: Arc<Traffic>,
    last: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // osquery closes TCP without close_notify.
        self.task.abort();
    }
}

impl Client {
    /// A client; `reuse` says if it keeps using its socket, which most versions do not.
    pub fn new(server: Server, version: Version, reuse: bool, traffic: Arc<Traffic>) -> Client {
        Client {
            server,
            version,
            reuse,
            traffic,
            last: None,
        }
    }

    /// Posts and returns the body of the answer, whatever its status.
    ///
    /// # Errors
    /// When the deadline passed, or the connection failed twice, or the answer is larger than 8 MiB.
    pub async fn post(&mut self, post: &Post) -> Result<Bytes, Trouble> {
        let body = if post.gzip {
            gzip(&post.body)
        } else {
            post.body.clone()
        };
        let both = async {
            match self.once(post, body.clone()).await {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    tracing::debug!(error = %format!("{error:#}"), path = %post.path, "Sending the same request once more");
                    self.last = None;
                    self.traffic.silent_reposts.fetch_add(1, Ordering::Relaxed);
                    self.once(post, body).await
                }
            }
        };
        let outcome = match tokio::time::timeout(DEADLINE, both).await {
            Ok(outcome) => outcome.map_err(Trouble::Network),
            Err(_) => Err(Trouble::Timeout),
        };
        if let Err(trouble) = &outcome {
            self.last = None;
            let words = match trouble {
                Trouble::Timeout => "no answer within 16 s".to_owned(),
                Trouble::Network(error) => format!("{error:#}"),
            };
            *self
                .traffic
                .last_trouble
                .lock()
                .expect("no holder of this lock panics") = Some(words);
        }
        outcome
    }

    async fn once(&mut self, post: &Post, body: Bytes) -> anyhow::Result<Bytes> {
        let kept = self.last.take();
        let mut connection = match kept.filter(|last| self.reuse && last.sender.is_ready()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut request = Request::post(&post.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, format!("osquery/{}", self.version));
        if let Some(key) = &post.authorization {
            request = request.header(header::AUTHORIZATION, format!("NodeKey {key}"));
        }
        if post.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let request = request
            .header(header::HOST, &self.server.host_header)
            .body(Full::new(body))?;
        connection.sender.ready().await?;
        let answer = connection.sender.send_request(request).await?;
        if matches!(
            answer.status().as_u16(),
            301 | 302 | 303 | 304 | 305 | 307 | 308
        ) {
            bail!("redirected, which this client does not follow");
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body
            .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
            .to_bytes();
        self.last = Some(connection);
        Ok(body)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(&self.server.address)
            .await
            .context("connecting")?;
        tcp.set_nodelay(true)?;
        let config = if self.version.speaks_tls13() {
            &self.server.modern
        } else {
            &self.server.old
        };
        let tls = TlsConnector::from(Arc::clone(config))
            .connect(self.server.name.clone(), tcp)
            .await
            .context("the TLS hand-shake")?;
        self.traffic.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(MAX_HEADER)
            .handshake(TokioIo::new(tls))
            .await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "A connection ended");
            }
        });
        Ok(Connection { sender, task })
    }
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("a Vec takes all bytes");
    encoder.finish().expect("a Vec takes all bytes").into()
}
