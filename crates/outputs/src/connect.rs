//! The one way out: a name is looked up, the addresses that may be called are kept, and exactly those are connected to.
//!
//! **Invariant:** no name is looked up a second time between the check and the connection, so one that answers differently a moment
//! later (rebinding) gains nothing. Nothing heeds a proxy of the environment, which would connect without asking us.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Options, SendError};

pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// To one address; a name may have several.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
pub(crate) const MOST_ADDRESSES: usize = 3;

/// How names become addresses.
#[async_trait]
pub trait Lookup: Send + Sync + fmt::Debug {
    /// All addresses of a name.
    ///
    /// # Errors
    /// It has none, or nobody answers.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// As the system does it.
#[derive(Debug)]
struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Connects to what may be called, and to nothing else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    options: Arc<Options>,
    lookup: Arc<dyn Lookup>,
}

impl Connector {
    /// A connector that keeps to these settings.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_lookup(options, Arc::new(SystemLookup))
    }

    /// The same, with names looked up in another way than the system's.
    #[must_use]
    pub fn with_lookup(options: Options, lookup: Arc<dyn Lookup>) -> Self {
        Self {
            options: Arc::new(options),
            lookup,
        }
    }

    /// Looks a host up and keeps what may be called.
    ///
    /// # Errors
    /// The name does not resolve (worth another try), or only to addresses that may not be called (not worth one).
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, SendError> {
        let host = bare(host);
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, self.lookup.addresses(host, port))
            .await
            .map_err(|_| SendError::retry(format!("looking up {host} takes too long")))?
            .map_err(|error| SendError::retry(format!("{host} does not resolve: {error}")))?;
        if found.is_empty() {
            return Err(SendError::retry(format!("{host} has no address")));
        }
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| self.options.allows(address.ip()))
            .collect();
        if allowed.is_empty() {
            return Err(inward(host));
        }
        Ok(allowed)
    }

    /// Refuses a URL whose host is an address that may not be called. Clients never look such a host up, so it has to be asked for by
    /// whoever gives a URL to a client of [`Self::http_builder`].
    ///
    /// # Errors
    /// It may not be called.
    pub fn check_url(&self, url: &Url) -> Result<(), SendError> {
        let host = bare(url.host_str().unwrap_or_default());
        match host.parse::<IpAddr>() {
            Ok(address) if !self.options.allows(address) => Err(inward(host)),
            _ => Ok(()),
        }
    }

    /// A client for HTTP that connects only to what may be called, follows no redirect (one could lead inward, and would carry the
    /// body to a stranger) and heeds no proxy of the environment.
    pub fn http_builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .user_agent(concat!("ostiary/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(self.clone()))
    }

    /// Connects by TCP to the first address that answers.
    ///
    /// # Errors
    /// As [`Self::resolve`]; nobody answers.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, SendError> {
        let mut last = SendError::retry(format!("{} has no address", bare(host)));
        for address in self
            .resolve(host, port)
            .await?
            .into_iter()
            .take(MOST_ADDRESSES)
        {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = SendError::retry(format!("{address}: {error}")),
                Err(_) => last = SendError::retry(format!("{address} does not answer in time")),
            }
        }
        Err(last)
    }

    /// A UDP socket that speaks with the first address of a host only.
    ///
    /// # Errors
    /// As [`Self::resolve`]; there is no way to that address.
    pub async fn udp(&self, host: &str, port: u16) -> Result<UdpSocket, SendError> {
        let addresses = self.resolve(host, port).await?;
        let address = addresses[0];
        let local: SocketAddr = if address.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let connect = async {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(address).await?;
            Ok::<_, io::Error>(socket)
        };
        connect
            .await
            .map_err(|error| SendError::retry(format!("{address}: {error}")))
    }

    /// Connects by TLS; the other side must prove the name that was asked for.
    ///
    /// # Errors
    /// As [`Self::tcp`]; the other side cannot prove its name, which somebody may mend.
    pub async fn tls(
        &self,
        host: &str,
        port: u16,
        trust: &Trust,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        // Said before anybody is connected to.
        ServerName::try_from(bare(host).to_owned())
            .map_err(|_| SendError::refused(format!("{host} is no name of a server")))?;
        let stream = self.tcp(host, port).await?;
        trust.encrypt(host, stream).await
    }
}

impl Resolve for Connector {
    fn resolve(&self, name: Name) -> Resolving {
        let connector = self.clone();
        Box::pin(async move {
            let addresses = Connector::resolve(&connector, name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

fn bare(host: &str) -> &str {
    host.trim().trim_start_matches('[').trim_end_matches(']')
}

fn inward(host: &str) -> SendError {
    SendError::refused(format!(
        "{host} lies on a private address, which the settings do not allow ([outputs] allowed_networks)"
    ))
}

/// Whose certificates are believed: those the system believes, and perhaps an authority of one's own.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    extra: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Reads the certificates of a PEM text; an empty text adds none.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let extra = read.map_err(|error| format!("the CA certificate cannot be read: {error}"))?;
        if extra.is_empty() && !text.trim().is_empty() {
            return Err("the CA certificate is no PEM text".to_owned());
        }
        let trust = Self { extra };
        trust
            .verifier()
            .map_err(|error| format!("the CA certificate cannot be used: {error}"))?;
        Ok(trust)
    }

    /// Goes on by TLS on a connection that was made in the clear; the other side must prove this name.
    pub(crate) async fn encrypt(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let name = ServerName::try_from(bare(host).to_owned())
            .map_err(|_| SendError::refused(format!("{host} is no name of a server")))?;
        let connector = TlsConnector::from(self.client_config()?);
        tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
            .await
            .map_err(|_| SendError::retry(format!("{host} does not finish the hand-shake")))?
            .map_err(|error| SendError::retry(format!("TLS with {host} failed: {error}")))
    }

    fn verifier(&self) -> Result<Verifier, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Verifier::new_with_extra_roots(self.extra.iter().cloned(), provider)
    }

    fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, SendError> {
        let unusable = |error| SendError::refused(format!("TLS cannot be set up: {error}"));
        let verifier = self.verifier().map_err(unusable)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            // "Dangerous" is any verifier that one brings; this one is the system's.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;

    /// A name that answers differently each time.
    #[derive(Debug)]
    struct Turning(Mutex<VecDeque<Vec<SocketAddr>>>);

    #[async_trait]
    impl Lookup for Turning {
        async fn addresses(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            let answer = self.0.lock().unwrap().pop_front().unwrap_or_default();
            Ok(answer
                .into_iter()
                .map(|address| SocketAddr::new(address.ip(), port))
                .collect())
        }
    }

    fn turning(answers: &[&[&str]]) -> Connector {
        let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
        let answers = answers
            .iter()
            .map(|answer| answer.iter().map(address).collect())
            .collect();
        let options = Options {
            allowed_networks: vec!["127.0.0.2/32".parse().unwrap()],
            ..Options::default()
        };
        Connector::with_lookup(options, Arc::new(Turning(Mutex::new(answers))))
    }

    #[tokio::test]
    async fn a_name_that_leads_inward_is_refused_for_good() {
        let connector = Connector::new(Options::default());
        for host in [
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "[::1]",
            "::ffff:10.0.0.1",
            "fd00::1",
            "255.255.255.255",
        ] {
            let refused = connector.tcp(host, 25).await;
            assert!(
                matches!(refused, Err(SendError::Refused { .. })),
                "{host}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_that_turns_inward_after_the_check_is_not_followed() {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = inside.local_addr().unwrap().port();
        let allowed = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let connector = turning(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1"]]);
        let stream = connector.tcp("rebinding.example", port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), allowed.local_addr().unwrap());
        let again = connector.tcp("rebinding.example", port).await;
        assert!(matches!(again, Err(SendError::Refused { .. })), "{again:?}");
        let by_udp = connector.udp("rebinding.example", port).await;
        assert!(
            matches!(by_udp, Err(SendError::Refused { .. })),
            "{by_udp:?}"
        );
    }

    #[tokio::test]
    async fn of_a_mixed_answer_only_what_may_be_called_is_kept() {
        let connector = turning(&[&["127.0.0.1", "127.0.0.2", "::ffff:10.0.0.1"]]);
        let kept = connector.resolve("mixed.example", 7).await.unwrap();
        assert_eq!(kept, ["127.0.0.2:7".parse().unwrap()]);
        let nothing = connector.resolve("mixed.example", 7).await;
        assert!(
            matches!(nothing, Err(SendError::Retry { .. })),
            "{nothing:?}"
        );
    }

    #[test]
    fn a_ca_certificate_is_read_or_said_to_be_none() {
        assert!(Trust::from_pem("").unwrap().extra.is_empty());
        for text in [
            "rubbish",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = Trust::from_pem(text).unwrap_err();
            assert!(error.contains("CA certificate"), "{error}");
        }
    }
}
