//! TLS of our listeners: one way to build a `ServerConfig`, and certificates that can be renewed while we run.
//!
//! TLS 1.2 and 1.3 by aws-lc-rs, HTTP/1.1 only. osqueryd offers no ALPN and names even IP addresses as server name; both are fine
//! here, since the certificate does not depend on what the client asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    let mut config = builder.with_cert_resolver(certificate.shown.clone());
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

/// Our certificate, as it is shown to clients, and the files it came from.
#[derive(Debug)]
pub struct Certificate {
    shown: Arc<Shown>,
    files: [PathBuf; 2],
    /// When the files that we have last looked at were written.
    seen: [Option<SystemTime>; 2],
}

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    fn load(options: &Options) -> anyhow::Result<Self> {
        let files = [options.certificate.clone(), options.private_key.clone()];
        let seen = written_at(&files);
        let pair = read_pair(&files)?;
        Ok(Self {
            shown: Arc::new(Shown(ArcSwap::from_pointee(pair))),
            files,
            seen,
        })
    }

    /// Reads the files again. New connections get the new certificate, old ones live on.
    ///
    /// # Errors
    /// The files hold no pair that belongs together; the old one stays.
    pub fn reload(&mut self) -> anyhow::Result<()> {
        self.seen = written_at(&self.files);
        self.shown.0.store(Arc::new(read_pair(&self.files)?));
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
            if !asked && written_at(&self.files) == self.seen {
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
}

fn written_at(files: &[PathBuf; 2]) -> [Option<SystemTime>; 2] {
    files.each_ref().map(|file| {
        std::fs::metadata(file)
            .and_then(|metadata| metadata.modified())
            .ok()
    })
}

fn read_pair([certificate, key]: &[PathBuf; 2]) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{} cannot be read as certificates", certificate.display()))?;
    ensure!(
        !chain.is_empty(),
        "{} holds no certificate",
        certificate.display()
    );
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} cannot be read as a key", key.display()))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).with_context(|| {
        format!(
            "{} and {} do not belong together",
            certificate.display(),
            key.display()
        )
    })
}
