//! Settings of the api: its own section `[api]`, and those it shares with the others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use ostiary_boot::{http, seal, telemetry, tls};
use ostiary_domain::carve::CarveOptions;
use serde::Deserialize;

use crate::aliases::Aliases;
use crate::limits::LimitOptions;

/// The sections that the api reads.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// `[log]`
    pub log: telemetry::Options,
    /// `[database]`
    pub database: ostiary_store::Options,
    /// `[redis]`
    pub redis: ostiary_queue::Options,
    /// `[keys]`
    pub keys: Keys,
    /// `[api]`
    pub api: Options,
    /// `[carves]`
    #[serde(default)]
    pub carves: CarveOptions,
}

/// Of `[keys]` only what the api may have.
#[derive(Debug, Clone, Deserialize)]
pub struct Keys {
    /// Finds enroll secrets.
    pub enroll: seal::Key,
}

/// Settings `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where the TLS listener listens.
    pub listen: Option<SocketAddr>,
    /// Where a listener without TLS listens, for use behind a proxy; none by default.
    pub plain_listen: Option<SocketAddr>,
    /// Proxies whose `X-Forwarded-For` is believed. Naming some allows `plain_listen` on an address that others can reach.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may read `/metrics`.
    pub metrics_allowed: Vec<IpNet>,
    /// Keep connections open after an answer. osqueryd opens a new one for every request anyway, and parks the old one.
    pub keep_alive: bool,
    /// The name of the secret in an enrollment; nodes with `--tls_enroll_override` use another.
    pub enroll_secret_name: String,
    /// Between the secret and the tags that a node wants, e.g. `:` for `secret:tag1:tag2`; empty to take secrets whole. Only tags of
    /// the secret can be chosen.
    pub enroll_tag_delimiter: String,
    /// Must a node say in the header `Authorization: NodeKey` who it is, before its body is read? osqueryd does from 5.23.0 on; older
    /// ones are then refused everything but the enrollment.
    pub require_key_header: bool,
    /// For so many minutes after its last request a node counts as alive, and is handed to nobody who enrolls with its hardware.
    pub alive_minutes: u32,
    /// So many machines at most wait for an approval; further ones get no key.
    pub approvals_max: u32,
    /// How often who may try what.
    pub limits: LimitOptions,
    /// How many nodes a second may be told to enroll again; the others are told to come back. Nodes whose key was revoked, and keys
    /// that nobody knows, have each so many.
    pub node_invalid_per_second: u32,
    /// How long a request may wait for Postgres, in milliseconds. osqueryd waits 16 s for the whole.
    pub answer_timeout_ms: u64,
    /// How often check-ins are written, in milliseconds.
    pub checkin_flush_ms: u64,
    /// How often generations are compared in case that a notification was lost, in milliseconds.
    pub freshness_poll_ms: u64,
    /// How often the certificate's files are looked at, in seconds.
    pub certificate_check_seconds: u64,
    /// Posts that may wait for their commit.
    pub ingest_queue: usize,
    /// After how many refusals a body over the limits is taken in part.
    pub oversized_refusals: u32,
    /// Largest body of `/enroll`, `/config` and `/distributed/read` in bytes, as sent and inflated.
    pub small_max_bytes: usize,
    /// Largest body of `/log` in bytes, as sent.
    pub log_max_sent_bytes: usize,
    /// Largest body of `/log` in bytes, inflated. A legal backlog can be large: 1,024 lines of up to 1 MiB, though rarely above
    /// 20 MiB.
    pub log_max_bytes: usize,
    /// Largest body of `/distributed/write` in bytes, as sent and inflated. What cannot be uploaded blocks all later results of the
    /// node.
    pub distributed_write_max_bytes: usize,
    /// For how many seconds a node that was handed a live query asks every 5 seconds for more; 0 to leave its interval alone.
    pub accelerate_seconds: u32,
    /// Bodies in memory at once, all requests together, in bytes; beyond it the answer is "busy".
    pub all_bodies_max_bytes: usize,
    /// PEM file: our certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: its private key, unencrypted.
    pub private_key: PathBuf,
    /// PEM file: the certificate that is on trial before it takes the place of `certificate`, then its intermediates.
    pub next_certificate: Option<PathBuf>,
    /// PEM file: the key of that.
    pub next_private_key: Option<PathBuf>,
    /// An address is shown the certificate on trial once in so many seconds at most.
    pub next_certificate_trial_seconds: u64,
    /// PEM file with the CAs that sign nodes' certificates.
    pub client_ca: Option<PathBuf>,
    /// Are nodes asked for a certificate?
    pub client_certificates: tls::ClientCertificates,
    /// Paths of other managers that are answered, too.
    pub aliases: Aliases,
    /// Time-outs and connections.
    pub http: http::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: None,
            plain_listen: None,
            trusted_proxies: Vec::new(),
            metrics_allowed: ["127.0.0.0/8", "::1/128"]
                .map(|net| net.parse().expect("it is a network"))
                .into(),
            keep_alive: false,
            enroll_secret_name: ostiary_domain::osquery::DEFAULT_SECRET_KEY.into(),
            enroll_tag_delimiter: String::new(),
            require_key_header: false,
            alive_minutes: 10,
            approvals_max: 1_000,
            limits: LimitOptions::default(),
            node_invalid_per_second: 50,
            answer_timeout_ms: 5_000,
            checkin_flush_ms: 10_000,
            freshness_poll_ms: 1_000,
            certificate_check_seconds: 5,
            ingest_queue: 2_048,
            oversized_refusals: 3,
            small_max_bytes: 1 << 20,
            log_max_sent_bytes: 128 << 20,
            log_max_bytes: 128 << 20,
            distributed_write_max_bytes: 128 << 20,
            accelerate_seconds: 60,
            all_bodies_max_bytes: 768 << 20,
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            next_certificate: None,
            next_private_key: None,
            next_certificate_trial_seconds: 60,
            client_ca: None,
            client_certificates: tls::ClientCertificates::default(),
            aliases: Aliases::default(),
            http: http::Options::default(),
        }
    }
}

impl Options {
    pub(crate) fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }

    pub(crate) fn tls(&self) -> tls::Options {
        tls::Options {
            certificate: self.certificate.clone(),
            private_key: self.private_key.clone(),
            client_ca: self.client_ca.clone(),
            client_certificates: self.client_certificates,
            next_certificate: self.next_certificate.clone(),
            next_private_key: self.next_private_key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct OnlyApi {
        api: Options,
        carves: CarveOptions,
    }

    #[test]
    fn the_defaults_of_the_file_are_those_of_the_code() {
        let settings: OnlyApi = ostiary_boot::settings::load(&Default::default()).unwrap();
        let code = Options {
            listen: settings.api.listen,
            certificate: settings.api.certificate.clone(),
            private_key: settings.api.private_key.clone(),
            ..Options::default()
        };
        assert_eq!(format!("{:?}", settings.api), format!("{code:?}"));
        assert_eq!(
            format!("{:?}", settings.carves),
            format!("{:?}", CarveOptions::default())
        );
    }
}
