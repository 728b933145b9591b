//! TLS of our listeners: one way to build a `ServerConfig`, and certificates that can be renewed while we run.
//!
//! TLS 1.2 and 1.3 by aws-lc-rs, HTTP/1.1 only. osqueryd offers no ALPN and names even IP addresses as server name; both are fine
//! here, since the certificate does not depend on what the client asks for.
//!
//! Beside the certificate in use a listener may have the *next* one, on trial ([`crate::trials`]): some connections are shown that
//! instead, so that one learns which clients trust its root before all depend on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::certificates::ChainId;

/// Certificate, key, and whether clients must show one, too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// PEM file: our certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: its private key, unencrypted.
    pub private_key: PathBuf,
    /// PEM file with the CAs that sign clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Are clients asked for a certificate?
    pub client_certificates: ClientCertificates,
    /// PEM file: the certificate on trial, then its intermediates.
    pub next_certificate: Option<PathBuf>,
    /// PEM file: its private key.
    pub next_private_key: Option<PathBuf>,
}

/// Are clients asked for a certificate?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// No.
    #[default]
    Off,
    /// Asked; those without one are served, too. One of a stranger's CA is refused.
    Optional,
    /// Nobody is served without.
    Required,
}

/// Makes aws-lc-rs the provider of the whole process. Call it first in `main`: with two providers linked rustls refuses to guess.
pub fn install_provider() {
    // An error means that it is installed already, which is all we want.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The configuration of a TLS listener, and the handle by which its certificate is renewed.
///
/// # Errors
/// A file is missing or cannot be read as what it should be, or key and certificate do not belong together.
pub fn server_config(
    options: &Options,
) -> anyhow::Result<(Arc<rustls::ServerConfig>, Certificate)> {
    let certificate = Certificate::load(options)?;
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])?;
    let builder = match options.client_certificates {
        ClientCertificates::Off => builder.with_no_client_auth(),
        asked => {
            let roots = Arc::new(client_roots(options)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(
                roots,
                Arc::new(aws_lc_rs::default_provider()),
            );
            let verifier = if asked == ClientCertificates::Optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_cert_resolver(certificate.shown.0.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok((Arc::new(config), certificate))
}

fn client_roots(options: &Options) -> anyhow::Result<RootCertStore> {
    let file = options
        .client_ca
        .as_ref()
        .context("client_certificates need client_ca")?;
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(file).with_context(|| format!("{}", file.display()))?
    {
        roots.add(certificate.with_context(|| format!("{}", file.display()))?)?;
    }
    ensure!(!roots.is_empty(), "{} holds no certificate", file.display());
    Ok(roots)
}

/// A chain of certificates that a listener shows.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Tells it from others.
    pub id: ChainId,
    /// The leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// The chains that a listener shows at present. Cheap to clone; follows every renewal.
#[derive(Debug, Clone)]
pub struct Shown(Arc<Resolver>);

impl Shown {
    /// The chain in use.
    #[must_use]
    pub fn present(&self) -> Chain {
        self.0.present.load().chain()
    }

    /// The chain on trial, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Chain> {
        self.0.next.load().as_ref().map(|next| next.chain())
    }
}

#[derive(Debug)]
struct Resolver {
    present: ArcSwap<Pair>,
    next: ArcSwapOption<Pair>,
}

#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    id: ChainId,
}

impl Pair {
    fn chain(&self) -> Chain {
        Chain {
            id: self.id,
            certificates: self.key.cert.clone(),
        }
    }
}

/// What one hand-shake wants to show, and which pair it was that it showed.
#[derive(Debug)]
struct Handshake {
    on_trial: bool,
    showed: std::sync::Mutex<Option<ChainId>>,
}

tokio::task_local! {
    /// rustls asks the resolver in the middle of a hand-shake and tells it nothing of the connection; this does.
    static HANDSHAKE: Arc<Handshake>;
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let handshake = HANDSHAKE.try_with(Arc::clone).ok();
        let on_trial = handshake
            .as_ref()
            .is_some_and(|handshake| handshake.on_trial);
        let next = if on_trial {
            self.next.load_full()
        } else {
            None
        };
        let pair = next.unwrap_or_else(|| self.present.load_full());
        if let Some(handshake) = handshake
            && let Ok(mut showed) = handshake.showed.lock()
        {
            *showed = Some(pair.id);
        }
        Some(pair.key.clone())
    }
}

/// Makes a hand-shake; `on_trial` shows the next chain if there is one. Gives, with the outcome, the chain that was shown: on success
/// the client trusts its root. `None` where it was spared the look, because it resumed a session.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: &TlsAcceptor,
    socket: S,
    on_trial: bool,
) -> (std::io::Result<TlsStream<S>>, Option<ChainId>) {
    let handshake = Arc::new(Handshake {
        on_trial,
        showed: std::sync::Mutex::default(),
    });
    let outcome = HANDSHAKE
        .scope(handshake.clone(), acceptor.accept(socket))
        .await;
    let resumed = outcome.as_ref().is_ok_and(|stream| {
        stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    });
    let showed = handshake.showed.lock().map_or(None, |showed| *showed);
    (outcome, showed.filter(|_| !resumed))
}

/// Our certificates, as they are shown to clients, and the files they came from.
#[derive(Debug)]
pub struct Certificate {
    shown: Shown,
    files: Files,
    next: Option<Files>,
    /// When the files that we have last looked at were written.
    seen: Vec<Option<SystemTime>>,
}

/// Certificate and key.
type Files = [PathBuf; 2];

impl Certificate {
    fn load(options: &Options) -> anyhow::Result<Self> {
        let files = [options.certificate.clone(), options.private_key.clone()];
        let is_named = |file: &&PathBuf| !file.as_os_str().is_empty();
        let next_certificate = options.next_certificate.as_ref().filter(is_named);
        let next_key = options.next_private_key.as_ref().filter(is_named);
        let next = match (next_certificate, next_key) {
            (Some(certificate), Some(key)) => Some([certificate.clone(), key.clone()]),
            (None, None) => None,
            _ => bail!("next_certificate and next_private_key go together"),
        };
        let resolver = Resolver {
            present: ArcSwap::from_pointee(read_pair(&files)?),
            next: ArcSwapOption::from(next.as_ref().map(read_pair).transpose()?.map(Arc::new)),
        };
        let mut certificate = Self {
            shown: Shown(Arc::new(resolver)),
            files,
            next,
            seen: Vec::new(),
        };
        certificate.seen = certificate.written_at();
        Ok(certificate)
    }

    /// What is shown, now and after every renewal.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Reads the files again. New connections get the new certificate, old ones live on.
    ///
    /// # Errors
    /// The files hold no pair that belongs together; the old one stays.
    pub fn reload(&mut self) -> anyhow::Result<()> {
        self.seen = self.written_at();
        let resolver = &self.shown.0;
        resolver.present.store(Arc::new(read_pair(&self.files)?));
        if let Some(next) = &self.next {
            resolver.next.store(Some(Arc::new(read_pair(next)?)));
        }
        Ok(())
    }

    /// Reloads whenever a file changes, which is looked for every `period`, and on SIGHUP, until `shutdown`.
    pub async fn watch(mut self, period: Duration, shutdown: CancellationToken) {
        let mut hang_up = match signal(SignalKind::hangup()) {
            Ok(signal) => signal,
            Err(error) => {
                return tracing::error!(%error, "certificates cannot be reloaded: no signals");
            }
        };
        let mut tick = tokio::time::interval(period);
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hang_up.recv() => true,
                _ = tick.tick() => false,
            };
            if !asked && self.written_at() == self.seen {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!("certificate reloaded"),
                // The pair may be half replaced: the next change is looked at again.
                Err(error) => {
                    tracing::error!(error = %format!("{error:#}"), "the old certificate stays");
                }
            }
        }
    }

    fn written_at(&self) -> Vec<Option<SystemTime>> {
        let written = |file: &PathBuf| {
            std::fs::metadata(file)
                .and_then(|metadata| metadata.modified())
                .ok()
        };
        let next = self.next.as_ref().map_or(&[][..], |next| &next[..]);
        self.files.iter().chain(next).map(written).collect()
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read_chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{} cannot be read as certificates", file.display()))?;
    ensure!(!chain.is_empty(), "{} holds no certificate", file.display());
    Ok(chain)
}

fn read_pair([certificate, key]: &Files) -> anyhow::Result<Pair> {
    let chain = read_chain(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} cannot be read as a key", key.display()))?;
    let id = ChainId::of(&chain);
    let key = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).with_context(
        || {
            format!(
                "{} and {} do not belong together",
                certificate.display(),
                key.display()
            )
        },
    )?;
    Ok(Pair {
        key: Arc::new(key),
        id,
    })
}
