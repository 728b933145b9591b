//! The soak: a fleet that reports all the time, while programs are killed and servers restarted under it. At the end its ledger must
//! agree with what is stored, and every drift must have been told.
//!
//! `tests/soak` runs it for long, the journey `crashes` for some rounds.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use ostiary_simulator::{Drift, Fleet, Misbehaviour, Verdict};

use crate::soak_faults::{finding_faults, mail_faults, store_faults};
use crate::{PATIENCE, Program, World, WorldOptions, eventually};

/// A round ends when so many lines were taken since its trouble, on average: some seconds.
const LINES_A_NODE: usize = 4;

/// Misbehaviour that lasts; a node that shows any of it is not told to drift.
const LASTING: [Misbehaviour; 4] = [
    Misbehaviour::Poison,
    Misbehaviour::DoublePost,
    Misbehaviour::ClockSkew,
    Misbehaviour::Clone,
];
const MISBEHAVING_SHARE: f64 = 0.06;

/// What happens to the installation in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KillApi,
    KillWorker,
    KillBoth,
    FlushRedis,
    RestartPostgres,
    CrashPostgres,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::KillApi,
    Trouble::KillWorker,
    Trouble::KillBoth,
    Trouble::FlushRedis,
    Trouble::RestartPostgres,
    Trouble::CrashPostgres,
];

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillApi => "kill -9 api",
            Self::KillWorker => "kill -9 worker",
            Self::KillBoth => "kill -9 api and worker",
            Self::FlushRedis => "Redis FLUSHALL",
            Self::RestartPostgres => "restart of Postgres",
            Self::CrashPostgres => "crash of Postgres",
        })
    }
}

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Troubles, one after the other.
    pub rounds: usize,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// Do some of them misbehave (poison, double posts, wrong clocks, clones, wiped databases)?
    pub misbehave: bool,
    /// Is the worker killed, and nothing else, again and again, while drifts are on their way to people?
    pub kills_only: bool,
}

/// What kills of the worker left half done: that they hit every step between match and mail.
#[derive(Debug, Clone, Copy, Default)]
pub struct HalfDone {
    /// Kills.
    pub kills: usize,
    /// Posts waited to be worked, or were at work.
    pub unworked: usize,
    /// A delivery was recorded and not begun.
    pub unsent: usize,
    /// A delivery was begun and not recorded as done.
    pub under_way: usize,
}

impl fmt::Display for HalfDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kills {}, of which found posts not worked {} · deliveries not begun {} · deliveries under way {}",
            self.kills, self.unworked, self.unsent, self.under_way
        )
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The comparison with the ledger.
    pub verdict: Verdict,
    /// Drifts that were made; each must have been told.
    pub drifts: usize,
    /// What kills of the worker met.
    pub half_done: HalfDone,
    /// Findings that were opened.
    pub findings: i64,
    /// Deliveries that were made.
    pub deliveries: i64,
    /// Mails beyond one for each delivery, under its id: allowed (at least once), and of interest.
    pub mails_again: usize,
    /// Everything that must not be.
    pub faults: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        writeln!(
            f,
            "drifts {} · findings {} · deliveries {} · mails sent again under the same id {}",
            self.drifts, self.findings, self.deliveries, self.mails_again
        )?;
        if self.half_done.kills > 0 {
            writeln!(f, "{}", self.half_done)?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT {fault}")?;
        }
        f.write_str(if self.faults.is_empty() {
            "clean"
        } else {
            "NOT CLEAN"
        })
    }
}

impl Plan {
    /// The world that it needs: servers of its own, the demo's rules.
    #[must_use]
    pub fn world(&self) -> WorldOptions {
        WorldOptions::demo()
            .private_servers()
            // Each drift is to be told alone, though many nodes have it.
            .set("STORMS__LEAST_NODES", "1000000")
    }

    /// Runs all of it in such a world. `say` gets a line whenever there is something to tell.
    ///
    /// # Panics
    /// Something that must happen in the end does not happen.
    pub async fn run(&self, world: &mut World, say: &mut dyn FnMut(&str)) -> Outcome {
        let load = concat!(env!("CARGO_MANIFEST_DIR"), "/soak/load.conf");
        world.command(&["import-pack", load], "").await;
        let mut builder = world.fleet(self.nodes);
        if self.misbehave {
            builder = builder.misbehave(&LASTING, MISBEHAVING_SHARE);
        }
        let fleet = builder.start().await.expect("nothing is written to disk");
        eventually("all nodes enroll", PATIENCE, async || {
            (fleet.enrolled() == fleet.len()).then_some(())
        })
        .await;
        world.another_look(&fleet, PATIENCE).await;
        say(&format!(
            "{} nodes report; their first sets are in",
            fleet.len()
        ));
        let mut drifts = Drifts::choose(self, world, &fleet).await;
        for round in 0..self.rounds {
            if self.kills_only {
                kill_worker(round, world, &fleet, &mut drifts, say).await;
            } else {
                self.round(round, world, &fleet, &mut drifts, say).await;
            }
        }
        let outcome = self.judge(world, &fleet, &drifts, say).await;
        fleet.stop().await;
        outcome
    }

    async fn round(
        &self,
        round: usize,
        world: &mut World,
        fleet: &Fleet,
        drifts: &mut Drifts,
        say: &mut dyn FnMut(&str),
    ) {
        let trouble = TROUBLES[round % TROUBLES.len()];
        // Sometimes the drift is on its way when the trouble comes, sometimes it meets the trouble.
        let drift_first = round.is_multiple_of(2);
        let mut drifted = None;
        if drift_first {
            drifted = drifts.next(fleet);
        }
        make(trouble, world, async || {
            if !drift_first {
                drifted = drifts.next(fleet);
            }
        })
        .await;
        if self.misbehave && round % 5 == 4 {
            let wiped = fleet.chosen(LASTING.len(), MISBEHAVING_SHARE);
            let node = wiped[round / 5 % wiped.len()];
            fleet
                .misbehave(node, Misbehaviour::Wipe)
                .expect("a node of the fleet");
        }
        let mark = fleet.totals().lines_deleted;
        let enough = u64::try_from(LINES_A_NODE * self.nodes).unwrap_or(u64::MAX);
        eventually("lines are taken again", PATIENCE, async || {
            (fleet.totals().lines_deleted >= mark + enough).then_some(())
        })
        .await;
        let drifted = drifted.map_or_else(String::new, |(node, drift)| {
            format!(" · node {node}: {}", drift.word())
        });
        let totals = fleet.totals();
        say(&format!(
            "round {}/{}: {trouble}{drifted} · {} lines deleted, {} posts failed, {} lines wait in buffers",
            round + 1,
            self.rounds,
            totals.lines_deleted,
            totals.failures,
            fleet.undelivered()
        ));
    }

    async fn judge(
        &self,
        world: &World,
        fleet: &Fleet,
        drifts: &Drifts,
        say: &mut dyn FnMut(&str),
    ) -> Outcome {
        say("every query runs once more");
        // A drift of the last round must be seen before the schedule is held.
        world.another_look(fleet, PATIENCE).await;
        say("buffers are emptied");
        let mut faults = Vec::new();
        if !fleet.drain(PATIENCE).await {
            faults.push(format!("{} lines stay in the buffers", fleet.undelivered()));
        }
        say("what is pending is worked off, and delivered");
        let idle = "SELECT count(*) FROM pending";
        eventually("nothing is pending", PATIENCE, async || {
            (world.scalar(idle).await == 0).then_some(())
        })
        .await;
        world.delivered().await;
        say("the ledger is compared");
        let verdict = world.verdict(fleet).await;
        if !verdict.is_clean() {
            faults.push(format!(
                "missing {:?}, doubled {:?}",
                first(&verdict.missing),
                first(&verdict.doubled)
            ));
        }
        faults.extend(self.node_faults(fleet));
        faults.extend(store_faults(world).await);
        faults.extend(finding_faults(world, fleet, &drifts.made).await);
        let (mails_again, mail_faults) = mail_faults(world).await;
        faults.extend(mail_faults);
        Outcome {
            verdict,
            drifts: drifts.made.len(),
            half_done: drifts.half_done,
            findings: world.scalar("SELECT count(*) FROM findings").await,
            deliveries: world
                .scalar("SELECT count(*) FROM deliveries WHERE state = 'delivered'")
                .await,
            mails_again,
            faults,
        }
    }

    /// What nodes saw and must not see.
    fn node_faults(&self, fleet: &Fleet) -> Vec<String> {
        let totals = fleet.totals();
        let mut faults = Vec::new();
        if totals.node_invalid > 0 {
            faults.push(format!("{} answers said node_invalid", totals.node_invalid));
        }
        let nodes = u64::try_from(fleet.len()).unwrap_or(u64::MAX);
        if !self.misbehave && totals.enrollments != nodes {
            faults.push(format!(
                "{} nodes enrolled {} times",
                nodes, totals.enrollments
            ));
        }
        faults
    }
}

/// Kills the worker some time after a drift: anywhere between the match and the mail. Before the next kill only posts are worked off,
/// since three workers that die of one post would set it aside; deliveries that one kill leaves half done meet the next.
async fn kill_worker(
    round: usize,
    world: &mut World,
    fleet: &Fleet,
    drifts: &mut Drifts,
    say: &mut dyn FnMut(&str),
) {
    let drifted = drifts.next(fleet);
    // Not to wait for anything: to hit another moment in each round. 1009 and 7919 are primes.
    let moment = Duration::from_millis(u64::try_from(round * 7919 % 1009).unwrap_or(0));
    tokio::time::sleep(moment).await;
    world.kill(Program::Worker).await;
    drifts.note_half_done(world).await;
    world.launch(Program::Worker).await;
    let mark = world.scalar("SELECT max(id) FROM pending").await;
    let left = format!("SELECT count(*) FROM pending WHERE id <= {mark}");
    eventually(
        "posts of before the kill are worked off",
        PATIENCE,
        async || (world.scalar(&left).await == 0).then_some(()),
    )
    .await;
    let drifted = drifted.map_or_else(String::new, |(node, drift)| {
        format!(" after a drift of node {node}: {}", drift.word())
    });
    say(&format!(
        "round {}: kill -9 worker {} ms{drifted}",
        round + 1,
        moment.as_millis()
    ));
}

/// Does one trouble; what runs `meanwhile` meets it half done.
async fn make(trouble: Trouble, world: &mut World, meanwhile: impl AsyncFnOnce()) {
    match trouble {
        Trouble::KillApi => {
            world.kill(Program::Api).await;
            meanwhile().await;
            world.launch(Program::Api).await;
        }
        Trouble::KillWorker => {
            world.kill(Program::Worker).await;
            meanwhile().await;
            world.launch(Program::Worker).await;
        }
        Trouble::KillBoth => {
            world.kill(Program::Worker).await;
            world.kill(Program::Api).await;
            meanwhile().await;
            world.launch(Program::Api).await;
            world.launch(Program::Worker).await;
        }
        Trouble::FlushRedis => {
            meanwhile().await;
            world.flush_redis().await;
        }
        Trouble::RestartPostgres | Trouble::CrashPostgres => {
            meanwhile().await;
            world
                .restart_postgres(trouble == Trouble::CrashPostgres)
                .await;
        }
    }
}

/// The drifts to make, and those made. Each shows once only, so that each is one finding.
struct Drifts {
    left: Vec<(usize, Drift)>,
    made: Vec<(usize, Drift)>,
    half_done: HalfDone,
}

impl Drifts {
    async fn choose(plan: &Plan, world: &World, fleet: &Fleet) -> Self {
        let mut odd = BTreeSet::new();
        if plan.misbehave {
            // One more than the lasting ones: those that are wiped.
            for nth in 0..=LASTING.len() {
                odd.extend(fleet.chosen(nth, MISBEHAVING_SHARE));
            }
        }
        let mut left = Vec::new();
        for drift in Drift::ALL {
            for node in (0..fleet.len()).filter(|node| !odd.contains(node)) {
                if world.can_see(fleet, node, drift).await {
                    left.push((node, drift));
                }
            }
        }
        // Taken from the end: all kinds in turn, over all nodes.
        left.sort_by_key(|(node, drift)| (node + 7 * *drift as usize) % fleet.len());
        Self {
            left,
            made: Vec::new(),
            half_done: HalfDone::default(),
        }
    }

    /// Looks at what a worker that was just killed has left.
    async fn note_half_done(&mut self, world: &World) {
        let some = async |what: &str| {
            let sql = format!("SELECT count(*) FROM {what}");
            usize::from(world.scalar(&sql).await > 0)
        };
        let seen = &mut self.half_done;
        seen.kills += 1;
        seen.unworked += some("pending").await;
        seen.unsent += some("deliveries WHERE state = 'waiting' AND attempts = 0").await;
        seen.under_way += some("deliveries WHERE state = 'waiting' AND attempts > 0").await;
    }

    fn next(&mut self, fleet: &Fleet) -> Option<(usize, Drift)> {
        let (node, drift) = self.left.pop()?;
        fleet.drift(node, drift).expect("a node of the fleet");
        self.made.push((node, drift));
        Some((node, drift))
    }
}

fn first(ids: &[String]) -> Vec<&String> {
    ids.iter().take(10).collect()
}
