//! The wire, byte by byte: a TLS connection per request, as osqueryd makes it, and no opinion about what is sent.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::PATIENCE;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status; osqueryd does not look at it.
    pub status: u16,
    /// The exact bytes of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Takes an answer apart; `Content-Length` bodies only, which is all that the api sends. `None` if there is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self {
            status,
            body: bytes[end + 4..].to_vec(),
        })
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Does osqueryd take it for a success? By `osquery/remote/utility.h`: an empty body counts as `{}`; a JSON object is one unless
    /// it has a key `error`, or `node_invalid` is true.
    #[must_use]
    pub fn is_success(&self) -> bool {
        if self.body.is_empty() {
            return true;
        }
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(Value::Object(body)) => {
                !body.contains_key("error") && body.get("node_invalid") != Some(&Value::Bool(true))
            }
            _ => false,
        }
    }

    /// Does it make osqueryd enroll again?
    #[must_use]
    pub fn is_node_invalid(&self) -> bool {
        serde_json::from_slice::<Value>(&self.body)
            .is_ok_and(|body| body.get("node_invalid") == Some(&Value::Bool(true)))
    }
}

/// What came of raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What came back.
    pub received: Vec<u8>,
    /// Did the other side close the connection?
    pub closed: bool,
}

/// A client of the api.
#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    user_agent: String,
}

impl Wire {
    /// Trusts only this authority.
    ///
    /// # Panics
    /// The file holds no certificate.
    #[must_use]
    pub fn new(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(ca).expect("the authority's file can be read")
        {
            roots
                .add(certificate.expect("it holds certificates"))
                .expect("they can be trusted");
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from("localhost").expect("this is a name"),
            user_agent: "osquery/5.23.0".into(),
        }
    }

    /// Speaks as another version.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.user_agent = format!("osquery/{version}");
        self
    }

    /// An open TLS connection, for those who write their own bytes.
    ///
    /// # Errors
    /// The api does not answer.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        self.connector.connect(self.name.clone(), stream).await
    }

    /// Writes raw bytes and returns everything that comes back until the other side closes, or until it is silent for `patience`.
    pub async fn raw(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        self.exchange(bytes, patience).await.received
    }

    /// Writes raw bytes and reads, for at most `patience`, until the other side closes.
    pub async fn exchange(&self, bytes: &[u8], patience: Duration) -> Exchange {
        let mut received = Vec::new();
        let Ok(stream) = self.connect().await else {
            return Exchange {
                received,
                closed: true,
            };
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Read while writing: the other side may answer and close before it has taken all, and a reset would swallow its answer.
        let read = reader.read_to_end(&mut received);
        let write = async {
            let _ = writer.write_all(bytes).await;
            let _ = writer.flush().await;
            std::future::pending::<()>().await;
        };
        let closed = tokio::select! {
            _ = read => true,
            () = write => false,
            () = tokio::time::sleep(patience) => false,
        };
        Exchange { received, closed }
    }

    /// Sends a request on a connection of its own. `None` if the connection was closed without an answer.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\nAccept: application/json\r\nUser-Agent: {}\r\nHost: localhost\r\n",
            self.user_agent
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let bytes = [head.as_bytes(), body].concat();
        Answer::parse(&self.raw(&bytes, PATIENCE).await)
    }

    /// POSTs JSON.
    ///
    /// # Panics
    /// The connection was closed without an answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes()).await
    }

    /// POSTs bytes.
    ///
    /// # Panics
    /// The connection was closed without an answer.
    pub async fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
            .await
            .unwrap_or_else(|| panic!("{path}: closed without an answer"))
    }

    /// Enrolls a machine and returns its node key.
    ///
    /// # Panics
    /// It is refused.
    pub async fn enroll(&self, secret: &str, host: &str) -> String {
        let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, host.as_bytes());
        let body = json!({
            "enroll_secret": secret, "host_identifier": uuid, "platform_type": "9",
            "host_details": {
                "os_version": {"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"},
                "osquery_info": {"uuid": uuid, "instance_id": format!("instance-{host}"), "version": "5.23.0", "build_platform": "linux"},
                "system_info": {"hostname": host, "uuid": uuid, "hardware_serial": format!("SN-{host}")}
            }
        });
        let answer = self.post("/enroll", &body).await;
        let key = answer.json()["node_key"].as_str().map(str::to_owned);
        key.unwrap_or_else(|| panic!("{host} was refused: {:?}", answer.json()))
    }
}

/// Compresses as osqueryd does.
///
/// # Panics
/// Never: memory takes everything.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
