//! Settings of the worker: its own section `[worker]`, and those it shares with the others.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::TimeDelta;
use ostiary_boot::{seal, telemetry};
use ostiary_domain::carve::CarveOptions;
use ostiary_domain::node::HealthLimits;
use serde::Deserialize;

use crate::dead_man::DeadMan;

/// The sections that the worker reads.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// `[log]`
    pub log: telemetry::Options,
    /// `[database]`
    pub database: ostiary_store::Options,
    /// `[redis]`
    pub redis: ostiary_queue::Options,
    /// `[public]`
    pub public: Public,
    /// `[keys]`
    pub keys: Keys,
    /// `[outputs]`
    pub outputs: ostiary_outputs::Options,
    /// `[sinks]`
    #[serde(default)]
    pub sinks: ostiary_outputs::sinks::Options,
    /// `[rollouts]`
    pub rollouts: ostiary_domain::rollout::Plan,
    /// `[storms]`
    pub storms: ostiary_domain::finding::StormLimits,
    /// `[worker]`
    pub worker: Options,
    /// `[dead_man]`
    #[serde(default)]
    pub dead_man: DeadMan,
    /// `[carves]`
    #[serde(default)]
    pub carves: CarveOptions,
    /// `[blobs]`
    #[serde(default)]
    pub blobs: ostiary_blobs::Options,
}

/// Of `[public]` what goes into alerts.
#[derive(Debug, Clone, Deserialize)]
pub struct Public {
    /// URL by which people reach the manager.
    pub manager_url: String,
}

/// Of `[keys]` only what the worker may have.
#[derive(Debug, Clone, Deserialize)]
pub struct Keys {
    /// Opens the settings of destinations and sinks.
    pub destinations: seal::Key,
}

/// How much larger than compressed the posts of one transaction may be together: logs of osquery are some ten times as large, while
/// posts made to be small would be a thousand times as large, and take all memory.
const OPENED: u64 = 16;

/// Settings `[worker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Groups of posts that are worked at once, each in a transaction of its own.
    pub batch_concurrency: usize,
    /// Deliveries that are made at once.
    pub delivery_concurrency: usize,
    /// Posts in one transaction at most.
    pub group_posts: i64,
    /// Compressed size of the posts of one transaction at most (a larger one is worked alone), in KiB. Opened they may be
    /// sixteen times as large.
    pub group_kib: i64,
    /// Decompressed size of a post at most, in MiB; a larger one is set aside as unreadable.
    pub post_mib: u64,
    /// After this long a transaction is given up and its posts are tried in smaller groups, in seconds.
    pub group_timeout_seconds: u64,
    /// A post that fails for a reason of its own is set aside as unreadable after this many attempts.
    pub attempts: i16,
    /// Names of queries that one node may be the first to say; results beyond are set aside.
    pub names_per_node: i64,
    /// An event older than this on arrival is marked as late, in hours.
    pub late_after_hours: i64,
    /// A node that has not checked in for this long is offline, in minutes.
    pub offline_after_minutes: i64,
    /// A node that checks in, but has proved for this long not that its schedule runs, is silent; in minutes.
    pub silent_after_minutes: i64,
    /// Who stays offline is told of again after each of these numbers of days.
    pub offline_days: Vec<i64>,
    /// A node that has sent results for this long since it fetched a config has to run it, in minutes.
    pub config_after_minutes: i64,
    /// A certificate of ours is told of when it has less than so many days left, once for each number.
    pub certificate_days: Vec<i32>,
    /// A full set of rows that came one row a line counts as ended when nothing more of it has come for this long, in minutes.
    pub settle_after_minutes: i64,
    /// Live queries are forgotten with their answers so many days after they were over.
    pub keep_live_queries_days: i64,
    /// Findings are forgotten so many days after they were resolved, with their alerts and deliveries.
    pub keep_findings_days: i64,
    /// Deliveries of findings that are resolved, and all attempts, are forgotten after so many days.
    pub keep_deliveries_days: i64,
    /// How often the sweep looks for what Redis forgot, in seconds.
    pub sweep_seconds: u64,
    /// How often partitions are made and dropped and old rows are deleted, in seconds.
    pub upkeep_seconds: u64,
}

impl Options {
    /// When a node is offline, and when silent.
    #[must_use]
    pub fn health_limits(&self) -> HealthLimits {
        HealthLimits {
            offline_after: TimeDelta::minutes(self.offline_after_minutes),
            silent_after: TimeDelta::minutes(self.silent_after_minutes),
        }
    }

    /// Spans after which an offline node is told of again.
    pub(crate) fn offline_again_after(&self) -> Vec<TimeDelta> {
        let days = self
            .offline_days
            .iter()
            .map(|days| (*days).clamp(1, 36_500));
        days.map(TimeDelta::days).collect()
    }

    pub(crate) fn config_after(&self) -> TimeDelta {
        TimeDelta::minutes(self.config_after_minutes)
    }

    pub(crate) fn group_timeout(&self) -> Duration {
        Duration::from_secs(self.group_timeout_seconds)
    }

    pub(crate) fn late_after(&self) -> TimeDelta {
        TimeDelta::hours(self.late_after_hours)
    }

    pub(crate) fn max_opened_bytes(&self) -> u64 {
        let bytes = u64::try_from(self.group_kib).unwrap_or(0) * 1024;
        bytes.saturating_mul(OPENED)
    }

    pub(crate) fn max_post_bytes(&self) -> u64 {
        self.post_mib.saturating_mul(1024 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use ostiary_boot::settings::DEFAULTS;

    use super::*;

    #[derive(Deserialize)]
    struct OnlyWorker {
        worker: Options,
        blobs: ostiary_blobs::Options,
        dead_man: DeadMan,
    }

    #[test]
    fn the_defaults_name_every_setting_of_the_worker_and_no_other() {
        let settings: OnlyWorker = ostiary_boot::settings::load(&Default::default()).unwrap();
        assert!(settings.worker.group_posts > 0 && settings.worker.attempts > 0);
        assert!(DEFAULTS.contains("\n[worker]\n"));
        assert_eq!(
            format!("{:?}", settings.blobs),
            format!("{:?}", ostiary_blobs::Options::default())
        );
        assert_eq!(
            format!("{:?}", settings.dead_man),
            format!("{:?}", DeadMan::default())
        );
    }
}
