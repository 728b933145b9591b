//! The command line of `ostiary-fleet`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use ostiary_simulator::identity::HostIdentifier;
use ostiary_simulator::schedule::Tempo;
use ostiary_simulator::settings::Endpoints;
use ostiary_simulator::version::Version;
use ostiary_simulator::{Carver, Drift, Misbehaviour, Server, Settings, Snapshots};

/// Runs simulated osqueryds against a TLS server and says whether it lost or doubled anything.
#[derive(Parser)]
#[command(name = "ostiary-fleet", version)]
pub(crate) struct Arguments {
    /// Server, as host or host:port.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub(crate) tls_hostname: String,
    /// PEM file with the only certificates that nodes trust.
    #[arg(long)]
    pub(crate) ca_cert: PathBuf,
    /// Enroll secret.
    #[arg(
        long,
        env = "OSTIARY_ENROLL_SECRET",
        hide_env_values = true,
        required_unless_present = "enroll_secret_file"
    )]
    pub(crate) enroll_secret: Option<String>,
    /// File that holds the enroll secret.
    #[arg(long)]
    pub(crate) enroll_secret_file: Option<PathBuf>,
    /// Before each path, for example /v1.
    #[arg(long, default_value = "")]
    pub(crate) path_prefix: String,
    /// Number of nodes.
    #[arg(long, default_value_t = 25)]
    pub(crate) nodes: usize,
    /// Versions of osquery, given to the nodes in turn.
    #[arg(long, value_delimiter = ',', value_parser = |text: &str| text.parse::<Version>())]
    pub(crate) versions: Vec<Version>,
    /// What nodes call themselves.
    #[arg(long, value_enum, default_value = "uuid")]
    pub(crate) host_identifier: HostIdentifier,
    /// Seconds between configs.
    #[arg(long, default_value_t = 60)]
    pub(crate) config_refresh: u64,
    /// Seconds between flushes of the log.
    #[arg(long, default_value_t = 4)]
    pub(crate) logger_tls_period: u64,
    /// Seconds between reads of live queries.
    #[arg(long, default_value_t = 10)]
    pub(crate) distributed_interval: u64,
    /// No timer above is longer, whatever a config says (seconds).
    #[arg(long)]
    pub(crate) max_timer: Option<u64>,
    /// Intervals of scheduled queries are multiplied by this.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) interval_scale: f64,
    /// No interval of a scheduled query is longer (seconds).
    #[arg(long)]
    pub(crate) max_interval: Option<u64>,
    /// Attempts to enroll, 0 for no end (default: as the version does).
    #[arg(long)]
    pub(crate) enroll_max_attempts: Option<u32>,
    /// Starts are spread over this time.
    #[arg(long, value_parser = duration, default_value = "2s")]
    pub(crate) ramp: Duration,
    /// Switches the carver on, with blocks of so many bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) carver_block_size: Option<usize>,
    /// Compresses what is carved.
    #[arg(long, requires = "carver_block_size")]
    pub(crate) carver_compression: bool,
    /// Drifts, each on all of --drift-node.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) drift: Vec<Drift>,
    /// When they happen.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) drift_after: Duration,
    /// Numbers of the nodes that drift.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub(crate) drift_node: Vec<usize>,
    /// Misbehaviours, each on other nodes.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) misbehave: Vec<Misbehaviour>,
    /// Share of nodes (0 to 1) for each misbehaviour.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) misbehave_share: f64,
    /// When databases are wiped, if that was asked for.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) wipe_after: Duration,
    /// Unix socket that takes commands such as `drift usb 3`.
    #[arg(long)]
    pub(crate) control: Option<PathBuf>,
    /// Folder for the nodes' databases, so that a restart does not enroll again.
    #[arg(long)]
    pub(crate) state: Option<PathBuf>,
    /// File to which the ledger is appended, as JSON lines.
    #[arg(long)]
    pub(crate) ledger: Option<PathBuf>,
    /// Ends after this time; without it, at SIGINT or SIGTERM.
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Manager (http://host:port) whose stored events are compared at the end.
    #[arg(long, requires = "api_token")]
    pub(crate) manager_url: Option<String>,
    /// Bearer token for the manager.
    #[arg(long, env = "OSTIARY_API_TOKEN", hide_env_values = true)]
    pub(crate) api_token: Option<String>,
    /// How the server keeps snapshots.
    #[arg(long, value_enum, default_value = "per-row")]
    pub(crate) snapshots: Snapshots,
    /// How long the server may take to store what it has acknowledged.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) settle: Duration,
    /// All chance follows from this.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Arguments {
    /// The flags of the fleet.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let ca = std::fs::read(&self.ca_cert)
            .with_context(|| format!("reading {}", self.ca_cert.display()))?;
        let secret = match (&self.enroll_secret, &self.enroll_secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("reading {}", file.display()))?;
                text.trim().to_owned()
            }
            (None, None) => String::new(),
        };
        let mut settings = Settings::new(Server::new(&self.tls_hostname, &ca)?, &secret);
        settings.endpoints = Endpoints::under(&self.path_prefix);
        settings.host_identifier = self.host_identifier;
        if !self.versions.is_empty() {
            settings.versions.clone_from(&self.versions);
        }
        settings.config_refresh = self.config_refresh;
        settings.config_accelerated_refresh = self.config_refresh;
        settings.logger_tls_period = self.logger_tls_period;
        settings.distributed_interval = self.distributed_interval;
        settings.max_timer = self.max_timer;
        settings.tempo = Tempo {
            scale: self.interval_scale,
            max_interval: self.max_interval,
        };
        settings.enroll_max_attempts = self.enroll_max_attempts;
        settings.carver = self.carver_block_size.map(|block_size| Carver {
            block_size,
            compression: self.carver_compression,
            file_bytes: 3_000_000,
        });
        settings.seed = self.seed;
        Ok(settings)
    }
}

/// A length of time such as `90`, `90s`, `2m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("no length of time: {text}"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("no unit of time: {unit}")),
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("2m", 120), ("1h", 3600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert!(duration("soon").is_err() && duration("1d").is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
