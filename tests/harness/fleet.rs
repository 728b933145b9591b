//! Fleets of the simulator against a world, and the comparison of their ledger with what is stored.

use std::time::Duration;

use ostiary_simulator::fleet::Builder;
use ostiary_simulator::stored::Manager;
use ostiary_simulator::verdict::fleet_line_in;
use ostiary_simulator::{Drift, Fleet, Scope, Server, Settings, Snapshots, StoredLine, Verdict};

use crate::{World, eventually};

/// Nodes need no more for a config, a flush, or the next run of a query (seconds).
const QUICK: u64 = 2;

/// The rule of the demo that a drift concerns.
#[must_use]
pub fn rule_of(drift: Drift) -> &'static str {
    match drift {
        Drift::Firewall => "Firewall switched off",
        Drift::ListeningPort => "New listening port",
        Drift::BrowserExtension => "New browser extension",
        Drift::Usb => "USB stick plugged in",
    }
}

/// The queries of the demo in which a drift shows, by the operating systems that have it.
fn queries_of(drift: Drift) -> &'static [&'static str] {
    match drift {
        Drift::Firewall => &[
            "pack/baseline/firewall_linux",
            "pack/baseline/firewall_macos",
            "pack/baseline/firewall_windows",
        ],
        Drift::ListeningPort => &["pack/baseline/listening_ports"],
        Drift::BrowserExtension => &["pack/baseline/chrome_extensions"],
        Drift::Usb => &["pack/baseline/usb_devices", "pack/baseline/disks_windows"],
    }
}

impl World {
    /// A fleet with quick timers, to be started.
    ///
    /// # Panics
    /// The world's own certificate cannot be read.
    #[must_use]
    pub fn fleet(&self, nodes: usize) -> Builder {
        let ca = std::fs::read(&self.certificates.ca).expect("the world made it");
        let server = Server::new(&format!("localhost:{}", self.api.port()), &ca);
        let mut settings = Settings::new(server.expect("it is one"), self.enroll_secret());
        settings.max_timer = Some(QUICK);
        settings.tempo.max_interval = Some(QUICK);
        settings.retry_unit = Duration::from_millis(200);
        Fleet::builder(settings)
            .nodes(nodes)
            .ramp(Duration::from_millis(20) * u32::try_from(nodes).unwrap_or(u32::MAX))
    }

    /// Waits until everything that the fleet has written down so far is stored and worked off.
    ///
    /// # Panics
    /// It is not within `patience`.
    pub async fn caught_up(&self, fleet: &Fleet, patience: Duration) {
        let all = 0..fleet.len();
        let marks: Vec<u64> = all.map(|node| counts(fleet, node).lines_made).collect();
        eventually("the fleet's lines are sent", patience, async || {
            let gone = |(node, mark): (usize, &u64)| {
                let now = counts(fleet, node);
                now.lines_deleted + now.lines_lost >= *mark
            };
            marks.iter().enumerate().all(gone).then_some(())
        })
        .await;
        let mark = self.scalar("SELECT max(id) FROM pending").await;
        eventually("the worker has worked them off", patience, async || {
            let left = format!("SELECT count(*) FROM pending WHERE id <= {mark}");
            (self.scalar(&left).await == 0).then_some(())
        })
        .await;
    }

    /// Waits until every node has run its whole schedule again, with what changed until now, and the worker has seen it.
    ///
    /// # Panics
    /// It is not within `patience`.
    pub async fn another_look(&self, fleet: &Fleet, patience: Duration) {
        // In quick time all queries of a node run in one second: two of those, whichever half of one we are in.
        let runs =
            2 * u64::try_from(self.scalar("SELECT count(*) FROM queries").await).unwrap_or(0);
        let all = 0..fleet.len();
        let marks: Vec<u64> = all.map(|node| counts(fleet, node).queries_run).collect();
        eventually("every query ran again", patience, async || {
            let ran = |(node, mark): (usize, &u64)| counts(fleet, node).queries_run >= mark + runs;
            marks.iter().enumerate().all(ran).then_some(())
        })
        .await;
        self.caught_up(fleet, patience).await;
    }

    /// A number out of the database; 0 for null.
    ///
    /// # Panics
    /// Postgres refuses.
    pub async fn scalar(&self, sql: &str) -> i64 {
        let sql = format!("SELECT coalesce(({sql}), 0)::text");
        let number = self.db.texts(&sql).await.concat();
        number.parse().expect("a number was asked for")
    }

    /// Has Ostiary seen on this node where this drift would show? Old osquerys lack some of the tables.
    ///
    /// # Panics
    /// Postgres refuses.
    pub async fn can_see(&self, fleet: &Fleet, node: usize, drift: Drift) -> bool {
        let hostname = fleet.identity(node).expect("a node of the fleet").hostname;
        let sql = format!(
            "SELECT count(*) FROM present_rows JOIN nodes ON nodes.id = node_id JOIN query_names ON query_names.id = query_name_id \
             WHERE hostname = '{hostname}' AND query_names.name IN ('{}')",
            queries_of(drift).join("', '")
        );
        self.scalar(&sql).await > 0
    }

    /// Compares the fleet's ledger with what REST says of events and Postgres of status logs.
    ///
    /// # Panics
    /// The manager does not answer.
    pub async fn verdict(&self, fleet: &Fleet) -> Verdict {
        self.verdict_since(fleet, 0).await
    }

    /// The same without the first lines of the ledger, so many that were deleted before some moment.
    ///
    /// # Panics
    /// The manager does not answer.
    pub async fn verdict_since(&self, fleet: &Fleet, mark: usize) -> Verdict {
        let url = format!("http://{}", self.manager);
        let manager = Manager::new(&url, &self.api_token).expect("it is a URL");
        let mut stored = manager.stored_lines().await.expect("the manager answers");
        let messages = self.db.texts("SELECT message FROM status_logs").await;
        stored.extend(messages.iter().filter_map(|message| {
            let fleet_line = fleet_line_in(message)?.to_owned();
            Some(StoredLine { fleet_line })
        }));
        let scope = Scope {
            snapshots: Snapshots::PerRow,
            status_lines: true,
        };
        Verdict::compare(
            fleet.totals().lines_sent,
            &fleet.ledger().lines()[mark..],
            stored,
            scope,
        )
    }
}

fn counts(fleet: &Fleet, node: usize) -> ostiary_simulator::counters::Counts {
    fleet.counts(node).expect("a node of the fleet")
}
