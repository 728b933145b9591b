//! A running fleet and what can be told to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::carver::{Carve, Carver};
use crate::counters::Counts;
use crate::database::Database;
use crate::drift::Drift;
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::misbehave::{Misbehaviour, is_chosen};
use crate::node::Node;
use crate::settings::Settings;
use crate::value::Columns;
use crate::version::Version;

/// How often databases are written.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// There is no node with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchNode(pub usize);

impl std::fmt::Display for NoSuchNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the fleet has no node {}", self.0)
    }
}

impl std::error::Error for NoSuchNode {}

/// A fleet to be started.
pub struct Builder {
    settings: Settings,
    nodes: usize,
    ledger: Option<PathBuf>,
    state: Option<PathBuf>,
    ramp: Duration,
    misbehaviours: Vec<Misbehaviour>,
    misbehaving_share: f64,
}

/// Nodes that run until the fleet is stopped or dropped.
pub struct Fleet {
    nodes: Vec<Arc<Node>>,
    ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Builder {
    /// The number of nodes, 25 if unsaid.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Builder {
        self.nodes = nodes;
        self
    }

    /// The versions of osquery that nodes run, in turn.
    #[must_use]
    pub fn versions(mut self, versions: &[Version]) -> Builder {
        self.settings.versions = versions.to_vec();
        self
    }

    /// All chance follows from this; fleets of different seeds are different machines.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Builder {
        self.settings.seed = seed;
        self
    }

    /// Tables whose reading by a scheduled query makes the watchdog end osqueryd.
    #[must_use]
    pub fn costly_tables(mut self, tables: &[&str]) -> Builder {
        self.settings.costly_tables = tables.iter().map(ToString::to_string).collect();
        self
    }

    /// The second in which osquery counts the pauses between attempts.
    #[must_use]
    pub fn retry_unit(mut self, unit: Duration) -> Builder {
        self.settings.retry_unit = unit;
        self
    }

    /// Switches the carver on.
    #[must_use]
    pub fn carver(mut self, carver: Carver) -> Builder {
        self.settings.carver = Some(carver);
        self
    }

    /// Also appends the ledger to this file, as JSON lines.
    #[must_use]
    pub fn ledger_file(mut self, path: PathBuf) -> Builder {
        self.ledger = Some(path);
        self
    }

    /// Keeps each node's database in this folder, so that a fleet started again does not enroll again.
    #[must_use]
    pub fn state_folder(mut self, path: PathBuf) -> Builder {
        self.state = Some(path);
        self
    }

    /// Spreads the starts of the nodes over this time.
    #[must_use]
    pub fn ramp(mut self, ramp: Duration) -> Builder {
        self.ramp = ramp;
        self
    }

    /// Lets a share (0 to 1) of nodes misbehave from the start, other nodes for each misbehaviour. Wiping
    /// is an event, not a state: tell it to a running fleet.
    #[must_use]
    pub fn misbehave(mut self, misbehaviours: &[Misbehaviour], share: f64) -> Builder {
        self.misbehaviours = misbehaviours.to_vec();
        self.misbehaving_share = share;
        self
    }

    /// Starts the nodes.
    ///
    /// # Errors
    /// When the ledger or the state folder cannot be opened.
    pub async fn start(self) -> anyhow::Result<Fleet> {
        let ledger = Arc::new(match &self.ledger {
            Some(path) => {
                Ledger::with_file(path).with_context(|| format!("opening {}", path.display()))?
            }
            None => Ledger::default(),
        });
        if let Some(folder) = &self.state {
            tokio::fs::create_dir_all(folder)
                .await
                .with_context(|| format!("making {}", folder.display()))?;
        }
        let settings = Arc::new(self.settings);
        let run = format!("{:08x}", rand::rng().random::<u32>());
        let mut nodes = Vec::with_capacity(self.nodes);
        for index in 0..self.nodes {
            // Versions turn within each platform, so that every platform has every version.
            let version = settings.versions[(index / 3 + index) % settings.versions.len()];
            let file = self
                .state
                .as_ref()
                .map(|folder| Database::path(folder, index));
            let kept = file.as_deref().map(Database::load).transpose()?.flatten();
            let database =
                kept.unwrap_or_else(|| Database::new(Identity::of(index, settings.seed, version)));
            nodes.push(Arc::new(Node::new(
                Arc::clone(&settings),
                Arc::clone(&ledger),
                &run,
                database,
                file,
            )));
        }
        let (stop, _) = watch::channel(false);
        let mut fleet = Fleet {
            nodes,
            ledger,
            stop,
            tasks: JoinSet::new(),
        };
        for (nth, misbehaviour) in self.misbehaviours.iter().enumerate() {
            for node in fleet.chosen(nth, self.misbehaving_share) {
                fleet.misbehave(node, *misbehaviour)?;
            }
        }
        fleet.spawn(self.ramp);
        Ok(fleet)
    }
}

impl Fleet {
    /// A fleet with these flags.
    pub fn builder(settings: Settings) -> Builder {
        Builder {
            settings,
            nodes: 25,
            ledger: None,
            state: None,
            ramp: Duration::ZERO,
            misbehaviours: Vec::new(),
            misbehaving_share: 0.2,
        }
    }

    fn spawn(&mut self, ramp: Duration) {
        let gap = ramp / u32::try_from(self.nodes.len().max(1)).unwrap_or(u32::MAX);
        for (place, node) in self.nodes.iter().cloned().enumerate() {
            let mut stopped = self.stop.subscribe();
            let wait = gap * u32::try_from(place).unwrap_or(u32::MAX);
            self.tasks.spawn(async move {
                let life = async {
                    tokio::time::sleep(wait).await;
                    node.live().await;
                };
                tokio::select! {
                    () = life => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        }
        let (nodes, mut stopped) = (self.nodes.clone(), self.stop.subscribe());
        self.tasks.spawn(async move {
            while tokio::time::timeout(SAVE_EVERY, stopped.wait_for(|stop| *stop))
                .await
                .is_err()
            {
                save(&nodes).await;
            }
        });
    }

    fn node(&self, node: usize) -> Result<&Arc<Node>, NoSuchNode> {
        self.nodes.get(node).ok_or(NoSuchNode(node))
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the fleet has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes that misbehave when a `share` of the fleet does in the `nth` way.
    pub fn chosen(&self, nth: usize, share: f64) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&index| is_chosen(index, nth, share))
            .collect()
    }

    /// Lets a node drift; its tables show it from now on.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn drift(&self, node: usize, drift: Drift) -> Result<(), NoSuchNode> {
        self.node(node)?.state().drifts.insert(drift);
        Ok(())
    }

    /// Undoes a drift.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn recover(&self, node: usize, drift: Drift) -> Result<(), NoSuchNode> {
        self.node(node)?.state().drifts.remove(&drift);
        Ok(())
    }

    /// Lets a node misbehave: poison, double posts and a wrong clock last until [`Fleet::behave`]; a clone
    /// takes the hardware of the node three before it (the same platform; or after it), wipes its
    /// database and enrolls again; a wipe happens once.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn misbehave(&self, node: usize, misbehaviour: Misbehaviour) -> Result<(), NoSuchNode> {
        let twin = node
            .checked_sub(3)
            .or_else(|| (node + 3 < self.len()).then_some(node + 3));
        let other = twin.map(|twin| self.identity(twin)).transpose()?;
        self.node(node)?.misbehave(misbehaviour, other.as_ref());
        Ok(())
    }

    /// Ends a lasting misbehaviour.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn behave(&self, node: usize, misbehaviour: Misbehaviour) -> Result<(), NoSuchNode> {
        self.node(node)?.behave(misbehaviour);
        Ok(())
    }

    /// Restarts a node's osqueryd on its database: no new enrollment, unsent live results are lost.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn restart(&self, node: usize) -> Result<(), NoSuchNode> {
        self.node(node)?.restart();
        Ok(())
    }

    /// Who a node is now.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn identity(&self, node: usize) -> Result<Identity, NoSuchNode> {
        Ok(self.node(node)?.state().database.identity.clone())
    }

    /// What a node calls itself now.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn host_identifier(&self, node: usize) -> Result<String, NoSuchNode> {
        let kind = self.node(node)?.settings.host_identifier;
        Ok(self.identity(node)?.host_identifier(kind).to_owned())
    }

    /// What a node did.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn counts(&self, node: usize) -> Result<Counts, NoSuchNode> {
        Ok(self.node(node)?.counters.now())
    }

    /// Rows of the latest run of each scheduled query of a node, by the query's name; values as text, before any escaping. Evented
    /// queries are left out. It is what a server should hold as soon as it has heard everything.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn last_rows(
        &self,
        node: usize,
    ) -> Result<BTreeMap<String, Vec<BTreeMap<String, String>>>, NoSuchNode> {
        let texts = |row: &Columns| {
            row.iter()
                .map(|(name, value)| (name.clone(), value.text()))
                .collect()
        };
        let state = self.node(node)?.state();
        let rows = state.last_rows.iter();
        Ok(rows
            .map(|(name, rows)| (name.clone(), rows.iter().map(texts).collect()))
            .collect())
    }

    /// What a node was asked to carve, in that order.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn carves(&self, node: usize) -> Result<Vec<Carve>, NoSuchNode> {
        Ok(self.node(node)?.state().carves.clone())
    }

    /// What all nodes did.
    pub fn totals(&self) -> Counts {
        let mut totals = Counts::default();
        self.nodes
            .iter()
            .for_each(|node| totals += node.counters.now());
        totals
    }

    /// TLS connections made and requests silently repeated, by all nodes.
    pub fn traffic(&self) -> (u64, u64) {
        self.nodes
            .iter()
            .fold((0, 0), |(connections, reposts), node| {
                let traffic = &node.traffic;
                (
                    connections + traffic.connections.load(Ordering::Relaxed),
                    reposts + traffic.silent_reposts.load(Ordering::Relaxed),
                )
            })
    }

    /// Why some node's last failed request got no answer, if any ever did.
    pub fn last_trouble(&self) -> Option<String> {
        let trouble = |node: &Arc<Node>| {
            let last = node.traffic.last_trouble.lock();
            last.expect("no holder of this lock panics").clone()
        };
        self.nodes.iter().find_map(trouble)
    }

    /// How many nodes hold a node key.
    pub fn enrolled(&self) -> usize {
        self.nodes
            .iter()
            .filter(|node| node.state().database.node_key.is_some())
            .count()
    }

    /// Lines that wait in all buffers.
    pub fn undelivered(&self) -> usize {
        self.nodes.iter().map(|node| node.undelivered()).sum()
    }

    /// The ledger, which outlives the fleet.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Holds the schedule (`true`) or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.nodes
            .iter()
            .for_each(|node| node.paused.store(paused, Ordering::Relaxed));
    }

    /// Holds the schedule and waits until all buffers are empty; whether that happened in time.
    pub async fn drain(&self, within: Duration) -> bool {
        self.pause(true);
        let deadline = Instant::now() + within;
        while self.undelivered() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    /// Stops all nodes where they are, as SIGKILL would, and writes their databases.
    pub async fn stop(mut self) {
        // Nobody listens any more if all tasks ended by themselves.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        save(&self.nodes).await;
    }
}

async fn save(nodes: &[Arc<Node>]) {
    for node in nodes {
        if let Err(error) = node.save().await {
            tracing::warn!(node = node.index, %error, "The node's database could not be written");
        }
    }
}
