//! What all nodes of a fleet share: the server, the flags of their flagfile, and how time is compressed.

use std::time::Duration;

use crate::carver::Carver;
use crate::client::Server;
use crate::identity::HostIdentifier;
use crate::schedule::Tempo;
use crate::version::Version;

/// Paths of the endpoints.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// `enroll_tls_endpoint`.
    pub enroll: String,
    /// `config_tls_endpoint`.
    pub config: String,
    /// `logger_tls_endpoint`.
    pub log: String,
    /// `distributed_tls_read_endpoint`.
    pub read: String,
    /// `distributed_tls_write_endpoint`.
    pub write: String,
    /// `carver_start_endpoint`.
    pub carve_start: String,
    /// `carver_continue_endpoint`.
    pub carve_continue: String,
}

impl Endpoints {
    /// The seven paths under a prefix such as `/v1`.
    pub fn under(prefix: &str) -> Endpoints {
        let path = |name: &str| format!("{prefix}/{name}");
        Endpoints {
            enroll: path("enroll"),
            config: path("config"),
            log: path("log"),
            read: path("distributed/read"),
            write: path("distributed/write"),
            carve_start: path("carve/start"),
            carve_continue: path("carve/continue"),
        }
    }
}

/// The flags of a fleet. Options that a config sets win over them where osquery lets them.
#[derive(Clone)]
pub struct Settings {
    /// Where the nodes connect.
    pub server: Server,
    /// The enroll secret.
    pub enroll_secret: String,
    /// Paths.
    pub endpoints: Endpoints,
    /// What nodes call themselves.
    pub host_identifier: HostIdentifier,
    /// Versions, given to the nodes in turn.
    pub versions: Vec<Version>,
    /// Seconds between configs.
    pub config_refresh: u64,
    /// Seconds to the next config after one failed.
    pub config_accelerated_refresh: u64,
    /// Seconds between flushes of the log.
    pub logger_tls_period: u64,
    /// Seconds between reads of live queries.
    pub distributed_interval: u64,
    /// No timer above is longer than this, whatever a config says (seconds).
    pub max_timer: Option<u64>,
    /// How intervals of scheduled queries are compressed.
    pub tempo: Tempo,
    /// The second in which osquery counts the pauses between attempts.
    pub retry_unit: Duration,
    /// Attempts to enroll, 0 for no end; unset, what the version does.
    pub enroll_max_attempts: Option<u32>,
    /// Share (0 to 1) of nodes in batch format.
    pub batch_share: f64,
    /// Share (0 to 1) of nodes that compress log posts.
    pub gzip_share: f64,
    /// Share (0 to 1) of nodes that keep their connections, besides the versions that do.
    pub reuse_share: f64,
    /// A query that reads one of these tables costs more than the watchdog allows: it ends osqueryd, which then starts again with the
    /// query denylisted. Of a live one nothing is ever reported, but the refusal to run the same SQL again.
    pub costly_tables: Vec<String>,
    /// The carver, which is off by default.
    pub carver: Option<Carver>,
    /// All chance follows from this.
    pub seed: u64,
}

impl Settings {
    /// A flagfile as the protocol's defaults have it, with the two timers that must be set.
    pub fn new(server: Server, enroll_secret: &str) -> Settings {
        Settings {
            server,
            enroll_secret: enroll_secret.to_owned(),
            endpoints: Endpoints::under(""),
            host_identifier: HostIdentifier::Uuid,
            versions: crate::version::MIX.to_vec(),
            config_refresh: 60,
            config_accelerated_refresh: 60,
            logger_tls_period: 4,
            distributed_interval: 10,
            max_timer: None,
            tempo: Tempo::default(),
            retry_unit: Duration::from_secs(1),
            enroll_max_attempts: None,
            batch_share: 0.15,
            gzip_share: 0.25,
            reuse_share: 0.05,
            costly_tables: Vec::new(),
            carver: None,
            seed: 1,
        }
    }

    /// A timer's length under `max_timer`, never 0.
    pub fn timer(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds.min(self.max_timer.unwrap_or(u64::MAX)).max(1))
    }
}
