//! A fleet moves here from a Doorman: its nodes go on with the keys they have, are asked what they were asked, and nothing that they
//! sent there before is mistaken for news.

use std::collections::BTreeMap;

use ostiary_store::testing::TestDb;
use ostiary_tests::{PATIENCE, Program, StoredRow, Wire, World, WorldOptions, eventually};
use serde_json::{Value, json};

const DATABASE: &str = include_str!("../fixtures/moving/doorman.sql");

/// What Doorman gave to these three nodes, by `doorman.sql`.
const WEB: &str = "0b7f6f6e-5d0a-4c52-9a53-0c6f6b1f0a01";
const LAB: &str = "0b7f6f6e-5d0a-4c52-9a53-0c6f6b1f0a02";
const RETIRED: &str = "0b7f6f6e-5d0a-4c52-9a53-0c6f6b1f0a03";

/// Names of results and SQL of all that a node is asked, the built-in pack aside.
async fn asked(wire: &Wire, key: &str) -> BTreeMap<String, String> {
    let config = wire.post("/config", &json!({"node_key": key})).await.json();
    assert_eq!(config["options"]["pack_delimiter"], "/", "{config}");
    let sql = |query: &Value| query["query"].as_str().unwrap().to_owned();
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut asked: BTreeMap<String, String> = (members(&config["schedule"]).iter())
        .map(|(name, query)| (name.clone(), sql(query)))
        .collect();
    for (pack, body) in members(&config["packs"])
        .iter()
        .filter(|(name, _)| *name != "ostiary")
    {
        for (name, query) in members(&body["queries"]) {
            asked.insert(format!("pack/{pack}/{name}"), sql(&query));
        }
    }
    asked
}

/// Rows of `pack/it/users` that were added, in one line.
fn users(key: &str, epoch: u64, counter: u64, names: &[&str]) -> Value {
    let rows: Vec<Value> = (names.iter())
        .map(|name| json!({"uid": "0", "username": name}))
        .collect();
    let line = json!({
        "name": "pack/it/users", "hostIdentifier": "h", "calendarTime": "", "unixTime": 1_700_000_000, "epoch": epoch,
        "counter": counter, "numerics": false, "diffResults": {"removed": [], "added": rows},
    });
    json!({"node_key": key, "log_type": "result", "data": [line]})
}

#[tokio::test]
async fn the_fleet_of_a_doorman_moves_in_without_enrolling_again() {
    let doorman = TestDb::new().await;
    // Away with our own tables: two of Doorman's have the same names.
    doorman
        .execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    doorman.execute(DATABASE).await;
    let options = WorldOptions::only(&[Program::Api, Program::Worker])
        .set("WORKER__SWEEP_SECONDS", "1")
        .set("API__CHECKIN_FLUSH_MS", "300");
    let world = World::start(options).await;
    let url = doorman
        .url(None)
        .replacen("postgres://", "postgresql+psycopg2://", 1);
    let import = ["import-doorman", "--database-url", &url];
    let shown = world.command(&import, "").await;
    assert!(
        shown.contains("+ node web-1")
            && shown.contains("Nothing was done")
            && !shown.contains(WEB),
        "{shown}"
    );
    let wire = world.wire();
    let before = wire.post("/config", &json!({"node_key": WEB})).await;
    assert!(before.is_node_invalid(), "nothing was done yet");
    let done = world
        .command(&["import-doorman", "--database-url", &url, "--apply"], "")
        .await;
    assert!(done.ends_with("Done.\n"), "{done}");

    // A key that was asked for moments ago is remembered as unknown for a while.
    eventually("the key is taken", PATIENCE, async || {
        let answer = wire.post("/config", &json!({"node_key": WEB})).await;
        answer.is_success().then_some(())
    })
    .await;
    let web: BTreeMap<String, String> = [
        ("pack/it/users", "SELECT * FROM users;"),
        (
            "pack/rootkit/sadmind/iis_worm",
            "SELECT * FROM file WHERE path = '/dev/cuc';",
        ),
        ("processes", "SELECT pid, name FROM processes;"),
    ]
    .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
    .into();
    // The api hears of new packs a moment after it hears of new keys.
    eventually("it is asked what it was", PATIENCE, async || {
        (asked(&wire, WEB).await == web).then_some(())
    })
    .await;
    let lab = [(
        "pack/it/users".to_owned(),
        "SELECT * FROM users;".to_owned(),
    )];
    // Its pack without a tag of this node stays away.
    assert_eq!(asked(&wire, LAB).await, lab.into());
    let retired = wire.post("/config", &json!({"node_key": RETIRED})).await;
    assert!(
        !retired.is_success() && !retired.is_node_invalid(),
        "a node that was switched off keeps its key"
    );

    go_on(&world, &wire).await;
    let again = world
        .command(&["import-doorman", "--database-url", &url, "--apply"], "")
        .await;
    assert!(again.contains("0 added, 0 changed, 0 removed"), "{again}");
    assert_eq!(
        world.scalar("SELECT count(*) FROM nodes").await,
        4,
        "nobody enrolled again"
    );
    doorman.drop().await;
    world.end().await;
}

/// Results arrive; after the epoch was raised a full set comes, which puts present rows right and opens nothing.
async fn go_on(world: &World, wire: &Wire) {
    // The last difference of a series that began at Doorman: what was before it, nobody here knows.
    assert!(
        wire.post("/log", &users(WEB, 0, 41, &["late"]))
            .await
            .is_success()
    );
    world.worked_off().await;
    let opened = world.scalar("SELECT count(*) FROM findings").await;
    world
        .command(&["resync", "--target", "prod", "--yes"], "")
        .await;
    let config = eventually("the new epoch is sent", PATIENCE, async || {
        let config = wire.post("/config", &json!({"node_key": WEB})).await.json();
        config["options"]["schedule_epoch"].as_u64()
    })
    .await;
    let config_of_lab = wire.post("/config", &json!({"node_key": LAB})).await.json();
    assert_eq!(
        config_of_lab["options"].get("schedule_epoch"),
        None,
        "it is for its target alone"
    );
    let everybody = ["root", "toor", "late"];
    assert!(
        wire.post("/log", &users(WEB, config, 0, &everybody))
            .await
            .is_success()
    );
    world.worked_off().await;
    let node = world.find_nodes("web-1").await.remove(0);
    let stored = world.stored(node.id).await;
    let rows: usize = stored
        .executions
        .iter()
        .map(|execution| execution.rows.len())
        .sum();
    assert!(rows >= 1, "{stored:?}");
    assert!(
        stored
            .executions
            .iter()
            .flat_map(|execution| &execution.rows)
            .all(|row| matches!(row, StoredRow::Added(_)))
    );
    let present = "SELECT row_count::bigint FROM present_rows JOIN query_names ON id = query_name_id WHERE name = 'pack/it/users'";
    assert_eq!(world.scalar(present).await, 3, "all are present now");
    assert_eq!(
        world.scalar("SELECT count(*) FROM findings").await,
        opened,
        "what was there before is no news"
    );
}
