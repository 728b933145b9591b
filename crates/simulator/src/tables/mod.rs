//! The simulated tables: what each of them holds on a node at a moment. A table that osquery has but that
//! is not simulated is empty; one that it does not have on this system is an error, as in SQLite.

mod columns;
mod devices;
mod network;
mod osquery;
mod security;
mod software;
mod system;

use std::collections::BTreeSet;

use crate::carver::Carve;
use crate::config::{Config, ScheduledQuery};
use crate::drift::Drift;
use crate::identity::{Identity, Platform};
use crate::select::Source;
use crate::value::Row;

/// A query's record in `osquery_schedule`.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub struct Runs {
    /// How often it ran.
    pub executions: u64,
    /// When it ran last, by the node's clock.
    pub last_executed: i64,
    /// Bytes of all its results.
    pub output_size: u64,
    /// The watchdog ended osqueryd for it.
    pub denylisted: bool,
}

/// All that tables are made from.
pub struct Host<'a> {
    /// Who the node is.
    pub identity: &'a Identity,
    /// Its config.
    pub config: &'a Config,
    /// What has drifted.
    pub drifts: &'a BTreeSet<Drift>,
    /// The node's clock.
    pub now: i64,
    /// When osquery started, by the same clock.
    pub started: i64,
    /// When the machine started, by the same clock.
    pub booted: i64,
    /// What is known of a query's runs.
    pub runs: &'a dyn Fn(&ScheduledQuery) -> Runs,
    /// File events since the last look.
    pub file_events: &'a [Row],
    /// Carves that were asked for.
    pub carves: &'a [Carve],
    /// Whether texts hold bytes that are no UTF-8.
    pub poison: bool,
}

const KNOWN: &str = include_str!("known.tsv");

/// Platforms of a table, and whether it is evented, if osquery has it.
fn known(table: &str) -> Option<(&'static str, bool)> {
    KNOWN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = line.split('\t');
            (fields.next() == Some(table)).then(|| {
                (
                    fields.next().unwrap_or_default(),
                    fields.next() == Some("e"),
                )
            })
        })
}

/// Whether a table reports events, which are only ever added.
pub fn is_evented(table: &str) -> bool {
    known(table).is_some_and(|(_, evented)| evented)
}

impl Host<'_> {
    /// The rows of a table now.
    ///
    /// # Errors
    /// `no such table` where this osquery on this system has none.
    pub fn table(&self, table: &str) -> Result<Vec<Row>, String> {
        let platform = self.identity.platform;
        let there = known(table)
            .is_some_and(|(platforms, _)| platforms.split(',').any(|p| p == platform.build_name()));
        if !there || self.identity.version() < columns::table_since(table) {
            return Err(format!("no such table: {table}"));
        }
        let mut rows = self.rows(table, platform);
        columns::keep_known(table, self.identity.version(), &mut rows);
        Ok(rows)
    }

    fn rows(&self, table: &str, platform: Platform) -> Vec<Row> {
        match table {
            "carves" => self.carves.iter().map(Carve::row).collect(),
            "osquery_info" => osquery::info(self),
            "osquery_schedule" => osquery::schedule(self),
            "osquery_packs" => osquery::packs(self),
            "osquery_registry" => osquery::registry(platform),
            "system_info" => system::system_info(self),
            "os_version" => system::os_version(self),
            "platform_info" => system::platform_info(self),
            "kernel_info" => system::kernel_info(self),
            "uptime" => system::uptime(self),
            "time" => system::time(self),
            "users" => system::users(self),
            "logged_in_users" => system::logged_in_users(self),
            "processes" => system::processes(self),
            "launchd" => system::launchd(),
            "startup_items" => system::startup_items(self),
            "services" => system::services(),
            "file_events" => self.file_events.to_vec(),
            "listening_ports" => network::listening_ports(self),
            "interface_addresses" => network::interface_addresses(self),
            "interface_details" => network::interface_details(self),
            "etc_hosts" => network::etc_hosts(self),
            "routes" => network::routes(self),
            "chrome_extensions" => software::chrome_extensions(self),
            "firefox_addons" => software::firefox_addons(self),
            "deb_packages" => software::deb_packages(),
            "apps" => software::apps(self),
            "programs" => software::programs(),
            "python_packages" => software::python_packages(self),
            "usb_devices" => devices::usb_devices(self),
            "logical_drives" => devices::logical_drives(self),
            "disk_info" => devices::disk_info(self),
            "mounts" => devices::mounts(self),
            "kernel_modules" => devices::kernel_modules(),
            "alf" => security::alf(self),
            "iptables" => security::iptables(self),
            "windows_security_center" => security::windows_security_center(self),
            "disk_encryption" => security::disk_encryption(self),
            "bitlocker_info" => security::bitlocker_info(self),
            "sip_config" => security::sip_config(),
            "gatekeeper" => security::gatekeeper(),
            _ => Vec::new(),
        }
    }

    /// Answers a statement.
    ///
    /// # Errors
    /// SQLite's message.
    pub fn query(&self, sql: &str) -> Result<Vec<Row>, String> {
        let source: &Source<'_> = &|table| self.table(table);
        crate::select::select(sql, source)
    }

    fn has(&self, drift: Drift) -> bool {
        self.drifts.contains(&drift)
    }

    /// A number that is the node's own and never changes.
    fn constant(&self, stream: u64) -> u64 {
        use sha1::{Digest, Sha1};
        let digest = Sha1::digest(format!("{}/{stream}", self.identity.serial));
        digest[..6]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;

    fn ask(
        index: usize,
        version: Version,
        drifts: &[Drift],
        sql: &str,
    ) -> Result<Vec<Row>, String> {
        let identity = Identity::of(index, 7, version);
        let config = Config {
            hash: "h".to_owned(),
            valid: true,
            ..Config::default()
        };
        let drifts = drifts.iter().copied().collect();
        Host {
            identity: &identity,
            config: &config,
            drifts: &drifts,
            now: 1_790_000_000,
            started: 1_789_999_000,
            booted: 1_789_990_000,
            runs: &|_| Runs::default(),
            file_events: &[],
            carves: &[],
            poison: false,
        }
        .query(sql)
    }

    const NEW: Version = Version(5, 23, 1);

    #[test]
    fn every_listed_table_answers_on_its_platforms_and_only_there() {
        for line in KNOWN.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split('\t').collect();
            for (index, platform) in ["linux", "darwin", "windows"].into_iter().enumerate() {
                let answer = ask(index, NEW, &[], &format!("SELECT * FROM {}", fields[0]));
                assert_eq!(
                    answer.is_ok(),
                    fields[1].split(',').any(|p| p == platform),
                    "{} on {platform}",
                    fields[0]
                );
            }
        }
    }

    #[test]
    fn every_drift_shows_in_its_table_on_every_platform() {
        for (drift, sql) in [
            (
                Drift::Firewall,
                [
                    "SELECT * FROM iptables",
                    "SELECT global_state FROM alf",
                    "SELECT firewall FROM windows_security_center",
                ],
            ),
            (
                Drift::ListeningPort,
                ["SELECT port FROM listening_ports"; 3],
            ),
            (
                Drift::BrowserExtension,
                ["SELECT identifier FROM chrome_extensions"; 3],
            ),
            (
                Drift::Usb,
                [
                    "SELECT * FROM usb_devices",
                    "SELECT * FROM usb_devices",
                    "SELECT * FROM logical_drives",
                ],
            ),
        ] {
            for (index, sql) in sql.into_iter().enumerate() {
                let before = ask(index, NEW, &[], sql).unwrap();
                assert_eq!(
                    before,
                    ask(index, NEW, &[], sql).unwrap(),
                    "{sql} must be steady"
                );
                assert_ne!(before, ask(index, NEW, &[drift], sql).unwrap(), "{sql}");
            }
        }
    }

    #[test]
    fn old_versions_lack_newer_tables_and_columns() {
        let old = Version(4, 0, 2);
        assert_eq!(
            ask(2, old, &[], "select * from windows_security_center").unwrap_err(),
            "no such table: windows_security_center"
        );
        assert_eq!(
            ask(0, old, &[], "select cpu_sockets from system_info").unwrap_err(),
            "no such column: cpu_sockets"
        );
        assert!(
            ask(
                0,
                old,
                &[],
                "select config_hash, instance_id from osquery_info"
            )
            .is_ok()
        );
        assert_eq!(
            ask(0, NEW, &[], "select * from foo").unwrap_err(),
            "no such table: foo"
        );
    }

    #[test]
    fn only_tables_of_events_are_evented() {
        assert!(is_evented("file_events") && !is_evented("users"));
    }
}
