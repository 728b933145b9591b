//! Live queries over nodes of all the versions that answer differently.

use std::collections::BTreeMap;

use ostiary_simulator::version::Version;
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually};
use serde_json::{Value, json};

const VERSIONS: [Version; 5] = [
    Version(2, 1, 0),
    Version(3, 3, 2),
    Version(4, 4, 0),
    Version(5, 5, 1),
    Version(5, 23, 1),
];

/// How often each state, with its message, occurs among the tasks.
fn tally(answer: &Value) -> BTreeMap<(String, String), usize> {
    let mut tally = BTreeMap::new();
    for task in answer["tasks"].as_array().unwrap() {
        let of = |field: &str| task[field].as_str().unwrap().to_owned();
        *tally.entry((of("state"), of("message"))).or_default() += 1;
    }
    tally
}

async fn ask(world: &World, draft: Value) -> String {
    let made = world.rest().post("live-queries", &draft).await;
    made["id"].as_str().unwrap().to_owned()
}

/// Waits until no task is open.
async fn settled(world: &World, id: &str) -> Value {
    let rest = world.rest();
    eventually("everybody has answered", PATIENCE, async || {
        let answer = rest.get(&format!("live-queries/{id}")).await;
        let open =
            |task: &Value| ["new", "offered"].contains(&task["state"].as_str().unwrap_or_default());
        let tasks = answer["tasks"].as_array().unwrap();
        (!tasks.is_empty() && !tasks.iter().any(open)).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_all_versions_are_asked_as_each_can_bear_and_understood() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Manager])).await;
    // Three platforms times five versions.
    let fleet = world.fleet(15).versions(&VERSIONS).start().await.unwrap();
    eventually("all have enrolled", PATIENCE, async || {
        (world.scalar("SELECT count(*) FROM nodes").await == 15).then_some(())
    })
    .await;

    let id = ask(&world, json!({"sql": "SELECT version, instance_id, build_platform FROM osquery_info", "target": "*"})).await;
    let answer = settled(&world, &id).await;
    assert_eq!(
        tally(&answer),
        BTreeMap::from([(("done".to_owned(), String::new()), 15)])
    );
    let order = json!(["version", "instance_id", "build_platform"]);
    assert_eq!(
        answer["results"]["columns"], order,
        "as selected, not as sorted"
    );
    let mut versions: Vec<&str> = answer["results"]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["cells"][0].as_str().unwrap())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, ["2.1.0", "3.3.2", "4.4.0", "5.23.1", "5.5.1"]);

    // A table of macOS: elsewhere an error, which 2.1.0 cannot tell and 3.3.2 tells without words.
    let id = ask(
        &world,
        json!({"sql": "SELECT global_state FROM alf", "target": "*"}),
    )
    .await;
    let answer = settled(&world, &id).await;
    let said = tally(&answer);
    let of =
        |state: &str, message: &str| said.get(&(state.to_owned(), message.to_owned())).copied();
    assert_eq!(of("done", ""), Some(5 + 2), "{said:?}");
    assert_eq!(of("failed", ""), Some(2), "{said:?}");
    assert_eq!(of("failed", "no such table: alf"), Some(6), "{said:?}");

    // A discovery goes to macOS from 5.8 on only; the others are not asked, and lose nothing.
    let draft = json!({"sql": "SELECT name FROM os_version", "discovery": "SELECT 1 FROM alf", "target": "*"});
    let conditional = ask(&world, draft).await;
    let plain = ask(
        &world,
        json!({"sql": "SELECT name FROM os_version", "target": "*"}),
    )
    .await;
    let answer = settled(&world, &plain).await;
    assert_eq!(
        tally(&answer),
        BTreeMap::from([(("done".to_owned(), String::new()), 15)])
    );
    let answer = settled(&world, &conditional).await;
    let said = tally(&answer);
    let of = |state: &str| said.get(&(state.to_owned(), String::new())).copied();
    assert_eq!((of("done"), of("unfit")), (Some(1), Some(14)), "{said:?}");
    assert_eq!(answer["counts"]["done"], 1);

    fleet.stop().await;
    world.end().await;
}
