//! Sinks of one worker to a file, rsyslog over TLS, Kafka, NATS JetStream and S3, and one to nobody at first: rows are stored by
//! transactions that overlap, the worker is killed on its way, a time is sent again. Kafka is the mock cluster of librdkafka.

mod places;

use std::collections::{BTreeMap, BTreeSet};

use ostiary_store::Db;
use ostiary_store::testing::execute;
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use places::{Late, OPEN, Places, make};

const NODES: usize = 5;
/// Transactions of each node before the first kill; as many come after it.
const HALF: usize = 30;
const ROWS: usize = 10;
const HALF_LINES: usize = NODES * HALF * ROWS;
const KILLS: usize = 3;
/// Lines of a batch at most, S3's apart.
const BATCH: usize = 1000;

/// Stores what one node reports: in its order, as the worker does, in transactions that overlap those of other nodes.
async fn report(db: Db, node: usize, mut go_on: watch::Receiver<usize>) {
    for transaction in 0..2 * HALF {
        let allowed = |limit: &usize| transaction < *limit;
        go_on.wait_for(allowed).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        for row in 0..ROWS {
            let sql = format!(
                "INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
                 VALUES ('00000000-0000-0000-0000-{node:012}', 1, now(), now(), 0, '{node} {}')",
                transaction * ROWS + row
            );
            execute(&mut tx, &sql).await;
        }
        Db::commit(tx).await.unwrap();
    }
}

fn ids(lines: &[Value]) -> BTreeSet<&str> {
    let ids = lines.iter().map(|line| line["id"].as_str().unwrap());
    ids.collect()
}

/// Waits until a place has so many different lines, and gives all that it has.
async fn all_of(places: &Places, place: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines in {place}"), PATIENCE, async || {
        let lines = places.lines(place).await;
        (ids(&lines).len() >= count).then_some(lines)
    })
    .await
}

/// The node of a line, and its number there.
fn number_of(line: &Value) -> (usize, usize) {
    let message = line["message"].as_str().unwrap();
    let (node, number) = message.split_once(' ').unwrap();
    (node.parse().unwrap(), number.parse().unwrap())
}

/// Lines of a node come in its order, but for what was sent again. Gives the number of these.
fn sent_again(place: &str, sent: &[Value]) -> usize {
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut again = 0;
    for line in sent {
        let (node, number) = number_of(line);
        let next = next.entry(node).or_default();
        assert!(
            number <= *next,
            "{place}: {number} of node {node} comes before {next}"
        );
        if number == *next {
            *next += 1;
        } else {
            again += 1;
        }
    }
    again
}

async fn sink(world: &World, name: &str) -> Value {
    let sinks = world.rest().all("sinks").await;
    let mut sinks = sinks.into_iter();
    sinks.find(|sink| sink["name"] == name).unwrap()
}

/// Did nothing go wrong with a sink that makes it send more again than a kill does? A machine that stands still may lose it a lease, or
/// an answer.
async fn was_calm(world: &World, name: &str) -> bool {
    let has_failed = !sink(world, name).await["failed_at"].is_null();
    !has_failed
        && !world
            .log(Program::Worker)
            .contains("a sink is held no more")
}

#[tokio::test]
async fn everything_arrives_everywhere_in_order_whoever_is_down_or_killed() {
    let folder = std::env::temp_dir().join(format!("ostiary-sinks-{}", ostiary_dev::random_hex(8)));
    std::fs::create_dir_all(&folder).unwrap();
    let options = WorldOptions::only(&[Program::Manager, Program::Worker])
        .set("SINKS__FOLDER", &folder.display().to_string());
    let mut world = World::start(options).await;
    let late = Late::new();
    let url = format!("http://127.0.0.1:{}/in", late.port);
    let settings = json!({"url": url, "compression": "none"});
    make(&world, "late", "http", &settings).await;
    let places = Places::start(&world, &folder).await;
    let (let_go, go_on) = watch::channel(HALF);
    let mut reporters = JoinSet::new();
    for node in 0..NODES {
        reporters.spawn(report(world.db.db.clone(), node, go_on.clone()));
    }

    for place in OPEN {
        let lines = all_of(&places, place, HALF_LINES).await;
        let again = sent_again(place, &lines);
        assert!(again == 0 || !was_calm(&world, place).await, "{place}");
    }

    let since = world.now();
    for round in 1..=KILLS {
        let before = places.lines("file").await.len();
        let_go.send_replace(HALF + HALF * round / KILLS);
        eventually("the file goes on", PATIENCE, async || {
            (places.lines("file").await.len() > before).then_some(())
        })
        .await;
        world.kill(Program::Worker).await;
        world.launch(Program::Worker).await;
    }
    while let Some(reporter) = reporters.join_next().await {
        reporter.unwrap();
    }
    for place in OPEN {
        let lines = all_of(&places, place, 2 * HALF_LINES).await;
        let again = sent_again(place, &lines);
        let most = KILLS * if place == "s3" { HALF_LINES } else { BATCH };
        assert!(
            again <= most || !was_calm(&world, place).await,
            "{place}: {again} lines came again"
        );
    }

    // Nobody was held up by the one that is down, and it will miss nothing.
    let down = eventually("who is down is said to be", PATIENCE, async || {
        let down = sink(&world, "late").await;
        (down["state"] == "failing").then_some(down)
    })
    .await;
    let told = (&down["sent_lines"], &down["behind"]);
    assert_eq!(told, (&json!(0), &json!(2 * HALF_LINES)));
    late.listen().await;
    let path = format!("sinks/{}", down["id"].as_str().unwrap());
    let resume = format!("{path}/resume");
    world.rest().post(&resume, &json!({})).await;
    eventually("who was down has caught up", PATIENCE, async || {
        let up = sink(&world, "late").await;
        (up["state"] == "forwarding" && up["behind"] == 0).then_some(())
    })
    .await;
    let caught_up = late.lines();
    assert_eq!(ids(&caught_up).len(), 2 * HALF_LINES);
    sent_again("late", &caught_up);

    // What came since a time comes again, and nothing else does.
    let body = json!({"since": since});
    world.rest().post(&format!("{path}/replay"), &body).await;
    let replayed = eventually("a time is sent again", PATIENCE, async || {
        let replayed = late.lines().split_off(caught_up.len());
        (ids(&replayed).len() >= HALF_LINES).then_some(replayed)
    })
    .await;
    let is_of_then = |line: &&Value| number_of(line).1 >= HALF * ROWS;
    assert_eq!(replayed.iter().find(|line| !is_of_then(line)), None);
    places.stop().await;
    world.end().await;
    let _ = std::fs::remove_dir_all(&folder);
}
