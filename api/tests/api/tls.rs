//! The TLS listener: versions, clients' certificates, renewal, and silence towards who does not speak.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ostiary_boot::tls::ClientCertificates;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Api, PATIENCE, raw};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = std::env::temp_dir().join(format!(
            "ostiary-tls-{name}-{}",
            ostiary_boot::clock::new_id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Writes a certificate and its key, and gives the certificate.
    fn issue(&self, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn start(authority: &Authority, clients: ClientCertificates) -> (Api, std::net::SocketAddr) {
    ostiary_boot::tls::install_provider();
    authority.issue("server");
    let api = Api::start_with(|settings| {
        let api = &mut settings.api;
        api.listen = Some("127.0.0.1:0".parse().unwrap());
        api.certificate = authority.path("server.pem");
        api.private_key = authority.path("server.key");
        api.client_ca = Some(authority.path("ca.pem"));
        api.client_certificates = clients;
        api.certificate_check_seconds = 1;
        api.http.handshake_timeout_seconds = 4;
    })
    .await;
    let address = api.tls_address();
    (api, address)
}

fn client(
    ca: &Path,
    version: &'static SupportedProtocolVersion,
    identity: Option<(PathBuf, PathBuf)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let builder =
        ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(certificate).unwrap()],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap(),
    }
}

/// The answer of `/healthz` and the certificate that was shown.
async fn ask(
    address: std::net::SocketAddr,
    config: ClientConfig,
    name: &'static str,
) -> std::io::Result<(String, CertificateDer<'static>)> {
    let request = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    say(address, config, name, request).await
}

/// The answer to a request and the certificate that was shown.
async fn say(
    address: std::net::SocketAddr,
    config: ClientConfig,
    name: &'static str,
    request: &str,
) -> std::io::Result<(String, CertificateDer<'static>)> {
    let socket = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name).unwrap(), socket)
        .await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned();
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, shown))
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_by_name_and_by_address() {
    let authority = Authority::new("versions");
    let (api, address) = start(&authority, ClientCertificates::Off).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for name in ["localhost", "127.0.0.1"] {
            let (answer, _) = ask(
                address,
                client(&authority.path("ca.pem"), version, None),
                name,
            )
            .await
            .unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("}"),
                "{answer}"
            );
        }
    }
    let plain = raw(address, b"POST /log HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(
        !plain.starts_with(b"HTTP"),
        "a request without TLS gets an alert at most"
    );
    assert!(
        raw(address, b"").await.is_empty(),
        "who says nothing is left"
    );
    api.stop().await;
}

#[tokio::test]
async fn a_required_client_certificate_is_required_and_an_optional_one_is_not() {
    let authority = Authority::new("clients");
    let stranger = Authority::new("stranger");
    authority.issue("node");
    stranger.issue("node");
    let ca = authority.path("ca.pem");
    let identity = |of: &Authority| Some((of.path("node.pem"), of.path("node.key")));
    for (clients, without_is_served) in [
        (ClientCertificates::Optional, true),
        (ClientCertificates::Required, false),
    ] {
        let (api, address) = start(&authority, clients).await;
        let version = &rustls::version::TLS12;
        assert_eq!(
            ask(address, client(&ca, version, None), "localhost")
                .await
                .is_ok(),
            without_is_served
        );
        assert!(
            ask(
                address,
                client(&ca, version, identity(&authority)),
                "localhost"
            )
            .await
            .is_ok()
        );
        assert!(
            ask(
                address,
                client(&ca, version, identity(&stranger)),
                "localhost"
            )
            .await
            .is_err()
        );
        api.stop().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let authority = Authority::new("renewal");
    let (api, address) = start(&authority, ClientCertificates::Off).await;
    let config = || client(&authority.path("ca.pem"), &rustls::version::TLS13, None);
    std::fs::write(authority.path("server.pem"), "rubbish").unwrap();
    let (_, before) = ask(address, config(), "localhost").await.unwrap();
    let renewed = authority.issue("server");
    assert_ne!(before, renewed);
    let started = Instant::now();
    while ask(address, config(), "localhost").await.unwrap().1 != renewed {
        assert!(
            started.elapsed() < PATIENCE,
            "the old certificate stays for ever"
        );
    }
    api.stop().await;
}

#[tokio::test]
async fn the_next_certificate_is_tried_and_who_refuses_it_is_served_at_once() {
    ostiary_boot::tls::install_provider();
    let (present, next) = (Authority::new("present"), Authority::new("next"));
    present.issue("server");
    let on_trial = next.issue("server");
    let api = Api::start_with(|settings| {
        let api = &mut settings.api;
        api.listen = Some("127.0.0.1:0".parse().unwrap());
        api.certificate = present.path("server.pem");
        api.private_key = present.path("server.key");
        api.next_certificate = Some(next.path("server.pem"));
        api.next_private_key = Some(next.path("server.key"));
        // Longer than two connections take on a busy machine.
        api.next_certificate_trial_seconds = 15;
        api.certificate_check_seconds = 1;
    })
    .await;
    let address = api.tls_address();
    let version = &rustls::version::TLS13;
    let node = |ca: &Authority| client(&ca.path("ca.pem"), version, None);
    assert!(
        ask(address, node(&present), "localhost").await.is_err(),
        "the first connection is the trial, and this node lacks the root"
    );
    let again = ask(address, node(&present), "localhost").await;
    assert!(again.is_ok(), "its second attempt is served");
    api.eventually(
        "SELECT host(address) || ' ' || refusals || ' ' || last_error FROM refused_trials",
        // Both roots have one name, as when a CA is renewed: the client finds its root, and the signature is another's.
        &["127.0.0.1 1 DecryptError"],
    )
    .await;

    let key = api.enroll("web-1").await;
    let body = format!("{{\"node_key\":\"{key}\"}}");
    let request = format!(
        "POST /config HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let started = Instant::now();
    let (answer, shown) = loop {
        // Between trials a node that trusts only the next root is refused.
        match say(address, node(&next), "localhost", &request).await {
            Ok(said) => break said,
            Err(_) => assert!(started.elapsed() < PATIENCE, "no trial comes"),
        }
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(shown, on_trial);
    api.eventually(
        "SELECT role FROM node_chains JOIN served_chains USING (fingerprint)",
        &["api_next"],
    )
    .await;
    api.stop().await;
}
