//! A thousand rules over REST, tried, and live under a reporting fleet: how long it takes from the post to the first attempt to tell of it.
//! Prints figures and judges none, since the machine decides. In `script/test shell`:
//! `cargo build --workspace --bins && cargo test -p ostiary-tests --test journeys a_thousand_rules -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use ostiary_tests::{PATIENCE, Program, Wire, World, WorldOptions, eventually};
use serde_json::{Value, json};

const RULES: usize = 1_000;
/// Nodes of the simulator, as they are, beside those that post as much as they can.
const FLEET: usize = 30;
const NODES: usize = 20;
/// Posts of 100 rows each that are worked off as fast as it goes.
const SATURATING: usize = 400;
/// Posts at half of that speed; every fifth brings a row that a rule waits for.
const STEADY: usize = 500;
const ROWS: usize = 100;

struct Node {
    wire: Wire,
    key: String,
    number: usize,
    posts: usize,
}

impl Node {
    /// The next post: half of its rows come, half are those of the post before, which go. `evil` is the rule that a row is for.
    async fn post(&mut self, now: i64, evil: Option<usize>) {
        let half = ROWS / 2;
        let row = |post: usize, row: usize| {
            json!({"pid": (post * half + row).to_string(), "name": format!("process-{row}"), "path": format!("/usr/bin/process-{row}"),
                "cmdline": "/usr/bin/process --flag --another=value"})
        };
        let line = |action: &str, columns: Value| {
            json!({"name": query(self.number), "hostIdentifier": "h", "calendarTime": "", "unixTime": now, "epoch": 0,
                "counter": self.posts + 1, "numerics": false, "action": action, "columns": columns})
        };
        let gone = (0..half).map(|one| line("removed", row(self.posts, one)));
        let came = (0..half).map(|one| line("added", row(self.posts + 1, one)));
        let evil = evil.map(|rule| {
            line("added", json!({"pid": rule.to_string(), "name": format!("evil-{rule}"), "path": "/tmp/x", "cmdline": "x"}))
        });
        let data: Vec<Value> = gone.chain(came).chain(evil).collect();
        let body = json!({"node_key": self.key, "log_type": "result", "data": data});
        assert!(self.wire.post("/log", &body).await.is_success());
        self.posts += 1;
    }
}

fn query(number: usize) -> String {
    format!("pack/p/q{}", number % NODES)
}

#[tokio::test]
#[ignore = "it measures, which says nothing on a busy machine"]
async fn a_thousand_rules_are_imported_tried_and_live() {
    let world = World::start(WorldOptions::demo()).await;
    let fleet = world.fleet(FLEET).start().await.unwrap();
    import(&world).await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let wire = world.wire();
        let key = wire
            .enroll(world.enroll_secret(), &format!("busy-{number}"))
            .await;
        let mut node = Node {
            wire,
            key,
            number,
            posts: 0,
        };
        node.post(world.now().timestamp(), None).await;
        nodes.push(node);
    }
    world.worked_off().await;

    let busy = cpu_seconds(&world);
    let began = Instant::now();
    for round in 0..SATURATING {
        let now = world.now().timestamp();
        nodes[round % NODES].post(now, None).await;
    }
    let posted = began.elapsed();
    worked_off_those_of(&world).await;
    let pace = began.elapsed() / u32::try_from(SATURATING).unwrap();
    println!(
        "saturated: {SATURATING} posts of {ROWS} rows in {posted:.1?}, worked off after {:.1?}, {:.0} rows a second, the worker busy for {:.1} s",
        began.elapsed(),
        ROWS as f64 / pace.as_secs_f64(),
        cpu_seconds(&world) - busy
    );

    let busy = cpu_seconds(&world);
    let began = Instant::now();
    let mut next = tokio::time::interval(pace * 2);
    for round in 0..STEADY {
        next.tick().await;
        let rule = (round / 5 * NODES + round % NODES) % RULES;
        let evil = (round % 5 == 0).then_some(rule);
        let now = world.now().timestamp();
        nodes[round % NODES].post(now, evil).await;
    }
    let took = began.elapsed();
    println!(
        "half of it: {STEADY} posts in {took:.1?}, the worker busy for {:.1} s",
        cpu_seconds(&world) - busy
    );
    world.worked_off().await;
    world.delivered().await;
    report(&world).await;
    trial(&world).await;
    fleet.stop().await;
    world.end().await;
}

/// Each rule waits for a value of its own, and for more than that, and tells by mail.
async fn import(world: &World) {
    let rest = world.rest();
    let mail = rest.all("destinations").await[0]["id"].clone();
    let began = Instant::now();
    for number in 0..RULES {
        let rule = json!({"name": format!("rule {number}"), "severity": "high", "destinations": [mail], "entity_columns": ["name"],
            "conditions": {"condition": "AND", "rules": [
                {"field": "query_name", "operator": "equal", "value": query(number)},
                {"field": "action", "operator": "equal", "value": "added"},
                {"field": "column", "operator": "column_not_contains", "value": ["path", "/System/"]},
                {"field": "column", "operator": "column_matches_regex", "value": ["name", format!("evil-{number}$")]}]}});
        rest.post("rules", &rule).await;
    }
    println!(
        "{RULES} rules imported over REST in {:.1?}",
        began.elapsed()
    );
    let began = Instant::now();
    let listed = rest.get("rules").await;
    assert!(listed["items"].as_array().unwrap().len() >= RULES);
    println!("listed in {:.1?}", began.elapsed());
}

async fn worked_off_those_of(world: &World) {
    eventually("the posts are worked off", PATIENCE * 5, async || {
        let sql = "SELECT count(*) FROM pending p JOIN nodes n ON n.id = p.node_id WHERE n.hostname LIKE 'busy-%'";
        (world.scalar(sql).await == 0).then_some(())
    })
    .await;
}

/// From the receipt of the post, which is before its commit, to the first attempt.
async fn report(world: &World) {
    let waits = "SELECT extract(epoch FROM a.first_at - b.received_at) * 1000 AS ms
        FROM findings f JOIN log_batches b ON b.id = f.last_batch_id
        JOIN deliveries d ON d.finding_id = f.id
        JOIN LATERAL (SELECT min(started_at) AS first_at FROM delivery_attempts WHERE delivery_id = d.id) a ON true
        WHERE f.rule_name LIKE 'rule %' AND f.match_count = 1";
    let figures = format!(
        "SELECT count(*)::text || ' alerts: p50 ' || round(percentile_disc(0.5) WITHIN GROUP (ORDER BY ms)) || ' ms, p90 '
            || round(percentile_disc(0.9) WITHIN GROUP (ORDER BY ms)) || ' ms, p99 ' || round(percentile_disc(0.99) WITHIN GROUP (ORDER BY ms))
            || ' ms, at most ' || round(max(ms)) || ' ms' FROM ({waits}) AS waits"
    );
    println!(
        "from the post to the first attempt, {}",
        world.db.texts(&figures).await.concat()
    );
    let told = world
        .scalar(&format!("SELECT count(*) FROM ({waits}) AS waits"))
        .await;
    assert_eq!(
        told,
        i64::try_from(STEADY / 5).unwrap(),
        "each was told once"
    );
}

async fn trial(world: &World) {
    let rule = json!({"severity": "high", "entity_columns": ["pid"], "conditions": {"condition": "AND", "rules": [
        {"field": "query_name", "operator": "in", "value": (0..NODES).map(query).collect::<Vec<_>>()},
        {"field": "column", "operator": "column_matches_regex", "value": ["name", ".*-7$"]}]}});
    let began = Instant::now();
    let trial = world
        .rest()
        .post("rules/dry-run", &json!({"rule": rule, "days": 7}))
        .await;
    println!(
        "tried on {} rows in {:.1?}: {} findings, cut off at {}",
        trial["rows"],
        began.elapsed(),
        trial["findings"],
        trial["cut_off_at"]
    );
}

/// Seconds that the worker has been computing, from `/proc/<pid>/stat`: user and system time in ticks of 10 ms.
fn cpu_seconds(world: &World) -> f64 {
    let pid = world.pid(Program::Worker).expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, after_name) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10).as_secs_f64()
}
