//! The state that a node's threads share, and the life of the process: start, threads, restart, end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Map, Value as Json};
use tokio::sync::Notify;

use crate::buffer::Buffer;
use crate::carver::Carve;
use crate::client::{Client, Traffic};
use crate::config::{Config, boolean, whole};
use crate::counters::{Counters, add};
use crate::database::Database;
use crate::drift::Drift;
use crate::identity::{Identity, dice, random_uuid};
use crate::ledger::Ledger;
use crate::lines::{Line, Writer};
use crate::misbehave::{Misbehaviour, clock_error};
use crate::settings::Settings;
use crate::tables::{Host, Runs};
use crate::value::{Columns, Row, raw_byte};
use crate::version::Version;

/// A node, shared by its threads.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Counters,
    pub(crate) traffic: Arc<Traffic>,
    /// No scheduled query runs while this is set.
    pub(crate) paused: AtomicBool,
    pub(super) enrolling: tokio::sync::Mutex<()>,
    /// Flagged to end the process and start it again on what is left of the database.
    restart: Notify,
    state: Mutex<State>,
    file: Option<PathBuf>,
    run: String,
    line_number: AtomicU64,
    pub(super) version: Version,
}

/// What the threads share.
pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) drifts: BTreeSet<Drift>,
    pub(crate) misbehaviours: BTreeSet<Misbehaviour>,
    pub(super) skew: i64,
    pub(super) config: Config,
    /// The etag that came with the config in force; in memory only, as osqueryd keeps it.
    pub(super) config_etag: String,
    pub(super) options: Map<String, Json>,
    pub(super) runs: BTreeMap<String, Runs>,
    /// Rows of the latest run of each query that is not evented: what the server should know of it by now.
    pub(crate) last_rows: BTreeMap<String, Vec<Columns>>,
    /// Columns of decorators that run at load and at intervals, by their place in the config.
    pub(super) decorations: BTreeMap<usize, Row>,
    /// Every carve that was asked for.
    pub(crate) carves: Vec<Carve>,
    pub(super) started: i64,
    booted_before: i64,
    pub(super) dice: StdRng,
}

/// The true time in Unix seconds.
fn true_time() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl State {
    pub(crate) fn misbehaves(&self, misbehaviour: Misbehaviour) -> bool {
        self.misbehaviours.contains(&misbehaviour)
    }

    /// The node's clock.
    pub(super) fn now(&self) -> i64 {
        true_time() + self.skew
    }

    pub(super) fn number(&self, option: &str, default: u64) -> u64 {
        whole(self.options.get(option)).unwrap_or(default)
    }

    pub(super) fn flag(&self, option: &str, default: bool) -> bool {
        boolean(self.options.get(option), default)
    }

    /// Does osqueryd refuse to run this query for now?
    pub(super) fn is_live_denylisted(&self, sql: &str, now: i64) -> bool {
        (self.database.live_denylist.get(sql)).is_some_and(|until| now < *until)
    }

    pub(super) fn is_denylisted(&self, query: &str, now: i64) -> bool {
        (self.database.denylist.get(query)).is_some_and(|until| now < *until)
    }

    /// The tables at second `now`.
    pub(super) fn with_host<T>(
        &self,
        now: i64,
        file_events: &[Row],
        read: impl FnOnce(&Host<'_>) -> T,
    ) -> T {
        read(&Host {
            identity: &self.database.identity,
            config: &self.config,
            drifts: &self.drifts,
            now,
            started: self.started,
            booted: self.started - self.booted_before,
            runs: &|query| Runs {
                denylisted: self.is_denylisted(&query.name, now),
                ..self.runs.get(&query.name).copied().unwrap_or_default()
            },
            file_events,
            carves: &self.carves,
            poison: self.misbehaves(Misbehaviour::Poison),
        })
    }
}

impl Node {
    pub(crate) fn new(
        settings: Arc<Settings>,
        ledger: Arc<Ledger>,
        run: &str,
        database: Database,
        file: Option<PathBuf>,
    ) -> Node {
        let index = database.identity.index;
        let mut dice = dice(settings.seed, index, 2);
        let state = State {
            drifts: BTreeSet::new(),
            misbehaviours: BTreeSet::new(),
            skew: 0,
            config: Config::default(),
            config_etag: String::new(),
            options: Map::new(),
            runs: BTreeMap::new(),
            last_rows: BTreeMap::new(),
            decorations: BTreeMap::new(),
            carves: Vec::new(),
            started: true_time(),
            booted_before: dice.random_range(600..2_000_000),
            dice,
            database,
        };
        Node {
            index,
            version: state.database.identity.version(),
            settings,
            ledger,
            counters: Counters::default(),
            traffic: Arc::default(),
            paused: AtomicBool::new(false),
            enrolling: tokio::sync::Mutex::new(()),
            restart: Notify::new(),
            state: Mutex::new(state),
            file,
            run: run.to_owned(),
            line_number: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Whether this node is within a share of the fleet; `nth` tells apart the traits that are shared out.
    pub(super) fn within(&self, nth: usize, share: f64) -> bool {
        crate::misbehave::is_chosen(self.index, nth, share)
    }

    /// The client of one more thread.
    pub(super) fn client(&self) -> Client {
        let reuse = self.version.reuses_connections() || self.within(7, self.settings.reuse_share);
        Client::new(
            self.settings.server.clone(),
            self.version,
            reuse,
            Arc::clone(&self.traffic),
        )
    }

    /// Lives until it is dropped; a restart begins again with what the database holds.
    pub(crate) async fn live(self: Arc<Node>) {
        loop {
            tokio::select! {
                () = self.process() => {}
                () = self.restart.notified() => {}
            }
        }
    }

    /// One process: enroll, config, then the threads. Ends when it has no key, as osqueryd does.
    async fn process(&self) {
        self.begin();
        let mut client = self.client();
        self.enroll_if_needed().await;
        self.fetch_config(&mut client).await;
        if self.state().database.node_key.is_none() {
            tokio::time::sleep(self.settings.retry_unit * 5).await;
            return;
        }
        tokio::join!(
            self.config_thread(client),
            self.logger_thread(),
            self.distributed_thread(),
            self.scheduler_thread(),
            self.carver_thread()
        );
    }

    fn begin(&self) {
        let mut state = self.state();
        state.started = state.now();
        state.config = Config::default();
        state.config_etag.clear();
        state.options = Map::new();
        state.runs.clear();
        state.decorations.clear();
        let poison = state.misbehaves(Misbehaviour::Poison);
        let killer = state.database.executing.take();
        if let Some(query) = &killer {
            let until = state.now() + DENYLISTED_FOR;
            state.database.denylist.insert(query.clone(), until);
        }
        let live = state.database.executing_live.take();
        if let Some(sql) = live.filter(|_| self.version.denylists_live_queries()) {
            let until = state.now() + DENYLISTED_FOR;
            state.database.live_denylist.insert(sql, until);
        }
        drop(state);
        if let Some(query) = killer {
            let message = format!("Scheduled query may have failed: {query}");
            self.log_status(1, "config.cpp", 1078, &message);
        }
        for (line, message) in START_MESSAGES.iter().enumerate() {
            self.log_status(
                0,
                "registry_factory.cpp",
                100 + u32::try_from(line).unwrap_or(0),
                message,
            );
        }
        if poison {
            let message = format!(
                "Cannot read file: /tmp/{}A{}\0\u{1b}[31m",
                raw_byte(0xFF),
                raw_byte(0xC3)
            );
            self.log_status(1, "filesystem.cpp", 71, &message);
        }
    }

    /// Ends the process and starts it again; what was only in memory is lost.
    pub(crate) fn restart(&self) {
        self.restart.notify_one();
    }

    /// Starts or triggers a misbehaviour. `other` is the identity that a clone takes.
    pub(crate) fn misbehave(&self, misbehaviour: Misbehaviour, other: Option<&Identity>) {
        let mut state = self.state();
        match misbehaviour {
            Misbehaviour::Poison
            | Misbehaviour::DoublePost
            | Misbehaviour::OddCarves
            | Misbehaviour::FailedCarves => {
                state.misbehaviours.insert(misbehaviour);
            }
            Misbehaviour::ClockSkew => {
                state.misbehaviours.insert(misbehaviour);
                state.skew = clock_error(self.index, true_time());
                drop(state);
                self.restart();
            }
            Misbehaviour::Clone => {
                // A fleet that was started again on its databases has its clones already.
                if let Some(other) =
                    other.filter(|other| other.uuid != state.database.identity.uuid)
                {
                    state.misbehaviours.insert(misbehaviour);
                    state.database.identity.uuid.clone_from(&other.uuid);
                    state.database.identity.serial.clone_from(&other.serial);
                    drop(state);
                    self.wipe();
                }
            }
            Misbehaviour::Wipe => {
                drop(state);
                self.wipe();
            }
        }
    }

    /// Ends a lasting misbehaviour.
    pub(crate) fn behave(&self, misbehaviour: Misbehaviour) {
        let mut state = self.state();
        state.misbehaviours.remove(&misbehaviour);
        if misbehaviour == Misbehaviour::ClockSkew {
            state.skew = 0;
            drop(state);
            self.restart();
        }
    }

    fn wipe(&self) {
        let mut state = self.state();
        let mut identity = state.database.identity.clone();
        identity.instance_id = random_uuid(&mut state.dice);
        add(
            &self.counters.lines_lost,
            state.database.buffer.len() as u64,
        );
        state.database = Database::new(identity);
        drop(state);
        self.restart();
    }

    /// Writes a status line into the buffer, if its severity is wanted.
    pub(super) fn log_status(&self, severity: u8, filename: &str, line: u32, message: &str) {
        let mut state = self.state();
        if u64::from(severity) < state.number("logger_min_status", 0)
            || state.flag("tls_disable_status_log", false)
        {
            return;
        }
        let now = state.now();
        let lines = self.write(&state, now, |writer| {
            vec![writer.status(severity, filename, line, message)]
        });
        self.buffer(&mut state, lines);
    }

    /// Writes lines as this node does now. Decorators that run always run here.
    pub(super) fn write(
        &self,
        state: &State,
        now: i64,
        lines: impl FnOnce(&mut Writer<'_>) -> Vec<Line>,
    ) -> Vec<Line> {
        let mut decorations: Row = state.decorations.values().flatten().cloned().collect();
        if state.flag("disable_decorators", false) {
            decorations.clear();
        } else {
            state.with_host(now, &[], |host| {
                let first = |sql: &String| {
                    host.query(sql)
                        .ok()
                        .and_then(|rows| rows.into_iter().next())
                };
                decorations.extend(
                    state
                        .config
                        .decorators
                        .always
                        .iter()
                        .filter_map(first)
                        .flatten(),
                );
            });
        }
        let mut next_id = || {
            let number = self.line_number.fetch_add(1, Ordering::Relaxed);
            format!("{}-{}-{number}", self.run, self.index)
        };
        lines(&mut Writer {
            node: self.index,
            host_identifier: state
                .database
                .identity
                .host_identifier(self.settings.host_identifier),
            version: self.version,
            unix_time: now,
            events: state.flag(
                "logger_event_type",
                !self.within(3, self.settings.batch_share),
            ),
            snapshot_events: state.flag("logger_snapshot_event_type", false),
            numerics: state.flag("logger_numerics", false),
            top_level: state.flag("decorations_top_level", false),
            decorations: &decorations,
            next_id: &mut next_id,
        })
    }

    /// Puts lines into the buffer; too long ones are lost, as in osquery.
    pub(super) fn buffer(&self, state: &mut State, lines: Vec<Line>) {
        let max =
            usize::try_from(state.number("logger_tls_max_linesize", 1 << 20)).unwrap_or(usize::MAX);
        for line in lines {
            add(&self.counters.lines_made, 1);
            if line.bytes.len() > max {
                add(&self.counters.lines_lost, 1);
                tracing::debug!(node = self.index, query = %line.entry.name, "A line is too long and is dropped");
            } else {
                state.database.buffer.push(line);
            }
        }
    }

    /// Undelivered lines.
    pub(crate) fn undelivered(&self) -> usize {
        self.state().database.buffer.len()
    }

    /// Writes the database to its file, if it has one.
    pub(crate) async fn save(&self) -> anyhow::Result<()> {
        let Some(path) = self.file.clone() else {
            return Ok(());
        };
        let bytes = self.state().database.to_bytes();
        tokio::task::spawn_blocking(move || crate::database::write(&path, &bytes)).await??;
        Ok(())
    }

    /// A buffer for tests and for the curious: how many lines wait.
    pub(super) fn with_buffer<T>(&self, act: impl FnOnce(&mut Buffer) -> T) -> T {
        act(&mut self.state().database.buffer)
    }
}

/// Seconds for which a query that ended osqueryd is not run.
const DENYLISTED_FOR: i64 = 86_400;

const START_MESSAGES: [&str; 20] = [
    "Registry reset: all plugins are loaded",
    "osquery initialized",
    "Loading extensions manager",
    "Extension manager service is listening",
    "Opening RocksDB handle",
    "RocksDB: database opened",
    "Checking database version for migration",
    "Database version is current",
    "Rocksdb open took 61 ms",
    "Adding new config plugin: tls",
    "Adding new logger plugin: tls",
    "Adding new distributed plugin: tls",
    "Starting event publisher run loop",
    "Event publisher not enabled: auditeventpublisher",
    "Event publisher not enabled: syslog",
    "Event publisher not enabled: BPFEventPublisher",
    "Starting watcher",
    "TLS/HTTPS POST request to the config endpoint",
    "Refreshing configuration state",
    "Distributed query service started",
];
