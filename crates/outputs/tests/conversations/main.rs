//! Destinations against real servers: mail over SMTP with and without TLS, webhooks over HTTP, and all the ways in which the other
//! side fails.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

mod email;
mod kafka;
mod scripted;
mod sinks;
mod syslog;
mod vendors;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ostiary_dev::certificates::Certificates;
use ostiary_outputs::destinations::Kind;
use ostiary_outputs::{Alert, AlertKind, Message, Options, Outbound, SendError, Templates};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use uuid::Uuid;

/// For what ends by itself; longer than any machine should need.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("ostiary-outputs-{}", ostiary_dev::random_hex(8));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server's side of TLS for these names, and the CA's certificate that a client must trust.
fn server_tls(folder: &Folder, names: &[&str]) -> (Arc<rustls::ServerConfig>, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let files = Certificates::ensure(&folder.0, &names).unwrap();
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
    let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.private_key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (
        Arc::new(config),
        std::fs::read_to_string(&files.ca).unwrap(),
    )
}

/// Sends on the loopback interface, with more patience than any test here takes.
fn outbound() -> Outbound {
    outbound_for(Duration::from_secs(30))
}

/// The same, for what never answers.
fn impatient() -> Outbound {
    outbound_for(Duration::from_secs(1))
}

fn outbound_for(patience: Duration) -> Outbound {
    let options = Options {
        allow_private_addresses: true,
        ..Options::default()
    };
    Outbound::with_timeout(options, patience).unwrap()
}

/// An alert; `changes` replace parts of its body.
fn message(changes: &Value) -> Message {
    let mut body = json!({
        "finding_id": Uuid::from_u128(9),
        "rule": {"name": "Firewall off", "severity": "high", "description": "Switch it on.", "runbook_url": "https://r.example"},
        "node": {"id": "1", "name": "mac-7", "host_identifier": "u", "platform": "darwin", "tags": ["eng"]},
        "entity": "global_state=0", "query_name": "pack/demo/firewall", "action": "added",
        "columns": {"global_state": "0"},
        "occurred_at": "2027-01-15T08:00:00Z", "opened_at": "2027-01-15T08:00:01Z", "url": "https://m.example/findings/1"
    });
    for (pointer, value) in changes.as_object().unwrap() {
        *body.pointer_mut(pointer).unwrap() = value.clone();
    }
    let alert: Alert = serde_json::from_value(body).unwrap();
    Message {
        alert_id: Uuid::from_u128(5).into(),
        delivery_id: Uuid::from_u128(6).into(),
        kind: AlertKind::Opened,
        templates: Templates::default(),
        now: alert.opened_at,
        alert,
    }
}

/// Sends to a destination of these settings.
async fn send(kind: &str, settings: &Value, message: &Message) -> Result<String, SendError> {
    send_by(&outbound(), kind, settings, message).await
}

async fn send_by(
    outbound: &Outbound,
    kind: &str,
    settings: &Value,
    message: &Message,
) -> Result<String, SendError> {
    let destination = Kind::find(kind).unwrap().read(settings).ok().unwrap();
    destination.send(outbound, message).await
}

/// The answer of an attempt that is worth another one, and the wait that was asked for.
fn retry(result: Result<String, SendError>) -> (String, Option<Duration>) {
    match result {
        Err(SendError::Retry { answer, after }) => (answer, after),
        other => panic!("not to be tried again: {other:?}"),
    }
}

/// The answer of an attempt that somebody over there may make good.
fn rejected(result: Result<String, SendError>) -> String {
    match result {
        Err(SendError::Rejected { answer }) => answer,
        other => panic!("not rejected: {other:?}"),
    }
}

/// The answer of an attempt that was refused for good.
fn refused(result: Result<String, SendError>) -> String {
    match result {
        Err(SendError::Refused { answer }) => answer,
        other => panic!("not refused: {other:?}"),
    }
}
