//! Sinks of a worker that is killed again and again while rows are stored by transactions that overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ostiary_store::Db;
use ostiary_store::testing::execute;
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually};
use serde_json::{Value, json};

const NODES: usize = 5;
const TRANSACTIONS: usize = 60;
const ROWS: usize = 10;
const KILLS: usize = 4;
/// Lines of a batch at most.
const BATCH: usize = 1000;

/// Stores what one node reports: in its order, as the worker does, in transactions that overlap those of other nodes.
async fn report(db: Db, node: usize, mut go_on: tokio::sync::watch::Receiver<usize>) {
    for transaction in 0..TRANSACTIONS {
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

/// The lines of the file so far, without one that is half written.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn make(world: &World, name: &str, kind: &str, fields: &Value) {
    let wanted = json!({"name": name, "kind": kind, "types": ["status"], "fields": fields});
    world.rest().post("sinks", &wanted).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_nothing_out_and_sends_only_its_last_batch_again() {
    let folder = std::env::temp_dir().join(format!("ostiary-sinks-{}", ostiary_dev::random_hex(8)));
    std::fs::create_dir_all(&folder).unwrap();
    let options = WorldOptions::only(&[Program::Manager, Program::Worker])
        .set("SINKS__FOLDER", &folder.display().to_string());
    let mut world = World::start(options).await;
    // One is dead all the time: nobody listens there.
    let nowhere = json!({"url": "http://127.0.0.1:9", "token": "x"});
    make(&world, "dead", "splunk", &nowhere).await;
    let settings = json!({"file": "status.log", "format": "json"});
    make(&world, "file", "file", &settings).await;
    let file = folder.join("status.log");

    let (let_go, go_on) = tokio::sync::watch::channel(0);
    let reporters: Vec<_> = (0..NODES)
        .map(|node| tokio::spawn(report(world.db.db.clone(), node, go_on.clone())))
        .collect();
    for round in 0..=KILLS {
        let before = lines(&file).len();
        let_go.send_replace(TRANSACTIONS * (round + 1) / (KILLS + 1));
        eventually("the sink goes on", PATIENCE, async || {
            (lines(&file).len() > before).then_some(())
        })
        .await;
        if round < KILLS {
            world.kill(Program::Worker).await;
            world.launch(Program::Worker).await;
        }
    }
    for reporter in reporters {
        reporter.await.unwrap();
    }
    let all = NODES * TRANSACTIONS * ROWS;
    let sent = eventually("all lines are there", PATIENCE, async || {
        let sent = lines(&file);
        let ids: BTreeSet<&str> = sent
            .iter()
            .map(|line| line["id"].as_str().unwrap())
            .collect();
        (ids.len() == all).then(|| sent.clone())
    })
    .await;
    assert_order(&sent);
    let dead: Vec<Value> = world.rest().all("sinks").await;
    let dead = dead.iter().find(|sink| sink["name"] == "dead").unwrap();
    assert_eq!(
        (&dead["state"], &dead["sent_lines"]),
        (&json!("failing"), &json!(0))
    );
    world.end().await;
    let _ = std::fs::remove_dir_all(&folder);
}

/// Lines of a node come in its order, but for what a kill has sent again: at most one batch each time.
fn assert_order(sent: &[Value]) {
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    let mut again = 0;
    for line in sent {
        let (node, number) = line["message"].as_str().unwrap().split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        let next = next.entry(node).or_default();
        assert!(number <= *next, "node {node}: {number} comes before {next}");
        if number == *next {
            *next += 1;
        } else {
            again += 1;
        }
    }
    assert!(again <= KILLS * BATCH, "{again} lines came again");
}
