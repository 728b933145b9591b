//! What looks like thousands of changes and is none: a new query on a whole fleet, a wiped osquery database, a laptop that was away for
//! three weeks. Nobody is paged, and everything is kept.

use ostiary_simulator::{Fleet, Misbehaviour};
use ostiary_tests::{PATIENCE, World, WorldOptions, eventually};
use serde_json::{Value, json};

/// Nodes in short; `OSTIARY_NO_PAGES_NODES=200` makes it long.
const NODES: usize = 40;
const DAY: i64 = 86_400;

fn nodes() -> usize {
    let wanted = std::env::var("OSTIARY_NO_PAGES_NODES").ok();
    wanted
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or(NODES)
}

// The fleet is busy: on its thread alone nothing else would be answered in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_query_a_wiped_database_and_a_laptop_back_after_weeks_page_nobody() {
    let world = World::start(WorldOptions::demo()).await;
    let fleet = world.fleet(nodes()).start().await.unwrap();
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == fleet.len()).then_some(())
    })
    .await;
    a_new_query(&world, &fleet).await;
    let wiped = fleet.len() / 2;
    fleet.misbehave(wiped, Misbehaviour::Wipe).unwrap();
    eventually("the wiped node enrolls again", PATIENCE, async || {
        (fleet.counts(wiped).unwrap().enrollments >= 2).then_some(())
    })
    .await;
    a_laptop_comes_back(&world).await;
    world.another_look(&fleet, PATIENCE).await;
    everything_is_kept(&world, &fleet).await;
    assert_eq!(
        world
            .db
            .texts("SELECT rule_name || ' on ' || node_name || ': ' || entity FROM findings")
            .await,
        [""; 0]
    );
    assert_eq!(world.mail.messages().unwrap().len(), 0);
    fleet.stop().await;
    world.end().await;
}

/// Its rule comes first, and would match each of its rows.
async fn a_new_query(world: &World, fleet: &Fleet) {
    for (command, file) in [
        ("create-rule", "fresh-rule.json"),
        ("import-pack", "fresh.conf"),
    ] {
        let file = format!("{}/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
        world.command(&[command, &file], "").await;
    }
    eventually("every node answers the new query", PATIENCE, async || {
        let sql = "SELECT count(DISTINCT node_id) FROM events JOIN query_names q ON q.id = query_name_id WHERE name = 'pack/fresh/ports'";
        (world.scalar(sql).await >= i64::try_from(fleet.len()).unwrap()).then_some(())
    })
    .await;
}

/// What it saw while it was away lies in its buffer, and comes all at once.
async fn a_laptop_comes_back(world: &World) {
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "laptop-on-leave").await;
    let now = world.now().timestamp();
    let line = |counter: i64, at: i64, port: String| {
        json!({"name": "pack/fresh/ports", "hostIdentifier": "laptop-on-leave", "calendarTime": "", "unixTime": at, "epoch": 0,
            "counter": counter, "numerics": false, "action": "added", "columns": {"port": port, "protocol": "6"}})
    };
    let away: Vec<Value> = (0..500)
        .map(|nth| {
            let at = now - 22 * DAY + nth * DAY / 25;
            line(nth, at, (1000 + nth).to_string())
        })
        .collect();
    for lines in away.chunks(100) {
        let body = json!({"node_key": key, "log_type": "result", "data": lines});
        assert!(wire.post("/log", &body).await.is_success());
    }
    eventually("all of it is stored", PATIENCE, async || {
        let sql =
            "SELECT coalesce(sum(row_count), 0)::bigint FROM events JOIN nodes n ON n.id = node_id
            WHERE n.hostname = 'laptop-on-leave'";
        (world.scalar(sql).await == 500).then_some(())
    })
    .await;
}

async fn everything_is_kept(world: &World, fleet: &Fleet) {
    assert!(
        fleet.drain(PATIENCE).await,
        "{} lines wait",
        fleet.undelivered()
    );
    world.worked_off().await;
    let verdict = world.verdict(fleet).await;
    assert!(verdict.is_clean(), "{verdict}: {verdict:?}");
    assert!(verdict.stored_exactly_once > 1000, "{verdict}");
    assert_eq!(world.scalar("SELECT count(*) FROM unreadable").await, 0);
}
