//! The soak: a fleet that reports all the time, while programs are killed and servers restarted under it. At the end its ledger must
//! agree with what is stored, and every drift must have been told.
//!
//! `tests/soak` runs it for long, the journey `crashes` for some rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ostiary_simulator::{Drift, Fleet, Misbehaviour, Verdict};

use crate::{PATIENCE, Program, World, WorldOptions, eventually, rule_of};

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

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The comparison with the ledger.
    pub verdict: Verdict,
    /// Drifts that were made; each must have been told.
    pub drifts: usize,
    /// Mails beyond one for each delivery: allowed (at least once), and of interest.
    pub mails_again: usize,
    /// Everything that must not be.
    pub faults: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        writeln!(
            f,
            "drifts {} · mails sent again {}",
            self.drifts, self.mails_again
        )?;
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
            .set("OSTIARY_STORMS__LEAST_NODES", "1000000")
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
        faults.extend(finding_faults(world, fleet, drifts).await);
        let (mails_again, mail_faults) = mail_faults(world).await;
        faults.extend(mail_faults);
        Outcome {
            verdict,
            drifts: drifts.made.len(),
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

/// Kills the worker some time after a drift: anywhere between the match and the mail, or while it starts. Nothing is waited for in
/// between, so what one kill leaves half done meets the next.
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
    world.launch(Program::Worker).await;
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
        }
    }

    fn next(&mut self, fleet: &Fleet) -> Option<(usize, Drift)> {
        let (node, drift) = self.left.pop()?;
        fleet.drift(node, drift).expect("a node of the fleet");
        self.made.push((node, drift));
        Some((node, drift))
    }
}

/// What must not stand in the store or in a log.
async fn store_faults(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    for reason in world
        .db
        .texts("SELECT reason || ': ' || encode(data, 'escape') FROM unreadable")
        .await
    {
        faults.push(format!("unreadable: {reason}"));
    }
    let dead =
        "SELECT destination_name || ': ' || last_answer FROM deliveries WHERE state <> 'delivered'";
    for dead in world.db.texts(dead).await {
        faults.push(format!("not delivered: {dead}"));
    }
    for program in [Program::Api, Program::Worker, Program::Manager] {
        let log = world.log(program);
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        faults.extend(panics.map(|line| format!("{}: {line}", program.name())));
    }
    faults
}

/// Each drift must be one finding, and nothing else a finding.
async fn finding_faults(world: &World, fleet: &Fleet, drifts: &Drifts) -> Vec<String> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (node, drift) in &drifts.made {
        let hostname = fleet.identity(*node).expect("a node of the fleet").hostname;
        *expected
            .entry(format!("{} on {hostname}", rule_of(*drift)))
            .or_default() -= 1;
    }
    let opened = "SELECT rule_name || ' on ' || node_name FROM alerts JOIN findings ON findings.id = finding_id
        WHERE alerts.kind = 'opened'";
    for opened in world.db.texts(opened).await {
        *expected.entry(opened).or_default() += 1;
    }
    let off = expected.into_iter().filter(|(_, balance)| *balance != 0);
    let mut faults: Vec<String> = off
        .map(|(what, balance)| match balance {
            ..0 => format!("never told: {what}"),
            _ => format!("told {balance} times too often: {what}"),
        })
        .collect();
    let doubled = "SELECT rule_name || ' on ' || node_name FROM findings GROUP BY rule_name, node_name, entity_hash HAVING count(*) > 1";
    for doubled in world.db.texts(doubled).await {
        faults.push(format!("found twice: {doubled}"));
    }
    let missed = "SELECT rule_name || ' on ' || node_name FROM findings f
        WHERE NOT EXISTS (SELECT FROM deliveries d WHERE d.finding_id = f.id)";
    for missed in world.db.texts(missed).await {
        faults.push(format!("no delivery: {missed}"));
    }
    faults
}

/// Every delivery must lie in the mailbox, at least once, under its own id.
async fn mail_faults(world: &World) -> (usize, Vec<String>) {
    let mails = world
        .mail
        .messages()
        .expect("the world's folder can be read");
    let id = |mail: &String| {
        let line = mail
            .lines()
            .find_map(|line| line.strip_prefix("Message-ID: <"))?;
        line.split('@').next().map(str::to_owned)
    };
    let caught: Vec<String> = mails.iter().filter_map(id).collect();
    let distinct: BTreeSet<&str> = caught.iter().map(String::as_str).collect();
    let deliveries = world.db.texts("SELECT id::text FROM deliveries").await;
    let missing = deliveries
        .iter()
        .filter(|id| !distinct.contains(id.as_str()));
    let mut faults: Vec<String> = missing
        .map(|id| format!("no mail of delivery {id}"))
        .collect();
    if distinct.len() != deliveries.len() || caught.len() != mails.len() {
        faults.push(format!(
            "{} mails of {} kinds for {} deliveries",
            mails.len(),
            distinct.len(),
            deliveries.len()
        ));
    }
    (caught.len() - distinct.len(), faults)
}

fn first(ids: &[String]) -> Vec<&String> {
    ids.iter().take(10).collect()
}
