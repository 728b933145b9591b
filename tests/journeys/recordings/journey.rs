//! The replays.

use ostiary_tests::{PATIENCE, Program, StoredTask, World, WorldOptions, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use super::recorded::{Recorded, Replica, find, lines_of, replace};
use super::said::Said;

#[tokio::test(flavor = "multi_thread")]
async fn a_real_osqueryd_is_answered_and_every_line_is_stored_once() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Worker])).await;
    for (name, lines) in [("event", 71), ("batch", 50)] {
        let recording = Recorded::all(name);
        let replica = Replica::enroll(&world, &recording, &format!("replayed-{name}")).await;
        let mut live_queries = Vec::new();
        for recorded in &recording[1..] {
            if recorded.path == "/distributed/write" {
                live_queries = ask(&world, &replica, &recorded.body()).await;
            }
            replica.send(recorded, &recorded.body()).await;
        }
        world.worked_off().await;
        let said = Said::of(&recording, &replica);
        assert_eq!(said.lines, lines, "{name}");
        said.compare(&world, &replica).await;
        for (id, wire_id) in live_queries {
            assert_eq!(
                world.task(id, replica.node).await,
                Some(answered(&wire_id)),
                "{wire_id}"
            );
        }
    }
    world.end().await;
}

/// Every other answer is lost on the way: the lines come again, with those that have come up since.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_again_in_larger_posts_are_stored_once() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Worker])).await;
    for name in ["event", "batch"] {
        let recording = Recorded::all(name);
        let replica = Replica::enroll(&world, &recording, &format!("forgetful-{name}")).await;
        for log_type in ["result", "status"] {
            let marker = format!("\"log_type\":\"{log_type}\"");
            let posts: Vec<_> = recording
                .iter()
                .filter(|recorded| recorded.path == "/log")
                .map(|recorded| (recorded, recorded.body()))
                .filter(|(_, body)| find(body, marker.as_bytes()).is_some())
                .collect();
            for pair in posts.chunks(2) {
                let (recorded, body) = &pair[0];
                replica.send(recorded, body).await;
                if let Some((_, next)) = pair.get(1) {
                    let both = [lines_of(body), b",", lines_of(next)].concat();
                    replica
                        .send(recorded, &replace(body, lines_of(body), &both))
                        .await;
                }
            }
        }
        world.worked_off().await;
        Said::of(&recording, &replica)
            .compare(&world, &replica)
            .await;
    }
    world.end().await;
}

/// Asks what the recorded answers answer, and polls until all of it was handed out.
async fn ask(world: &World, replica: &Replica, write: &[u8]) -> Vec<(Uuid, String)> {
    let write: Value = serde_json::from_str(&String::from_utf8_lossy(write)).unwrap();
    let mut asked = Vec::new();
    for wire_id in write["queries"].as_object().unwrap().keys() {
        asked.push((
            world.ask(&[replica.node], wire_id, "SELECT 1").await,
            wire_id.clone(),
        ));
    }
    let mut waiting: Vec<&String> = asked.iter().map(|(_, wire_id)| wire_id).collect();
    eventually("live queries are handed out", PATIENCE, async || {
        let answer = replica
            .wire
            .post("/distributed/read", &json!({"node_key": replica.key}))
            .await
            .json();
        waiting.retain(|wire_id| answer["queries"].get(wire_id.as_str()).is_none());
        waiting.is_empty().then_some(())
    })
    .await;
    asked
}

/// What the recorded answers to live queries say.
fn answered(wire_id: &str) -> StoredTask {
    let user_time = if wire_id == "lq_none" { 10 } else { 0 };
    let said = |state: &str, status, message: &str, rows: Value| StoredTask {
        state: state.into(),
        status: Some(status),
        message: message.into(),
        stats: serde_json::from_value(json!({
            "wall_time_ms": 0, "user_time_ms": user_time, "system_time_ms": 0, "memory_bytes": 0
        }))
        .unwrap(),
        rows: serde_json::from_value(rows).unwrap(),
    };
    match wire_id {
        "lq_os" => said(
            "done",
            0,
            "",
            json!([{"name": "Debian GNU/Linux", "version": "12 (bookworm)"}]),
        ),
        "lq_none" => said("done", 0, "", json!([])),
        "lq_bytes" => {
            let row = json!({"bad": "\u{FFFD}A\u{FFFD}", "utf8": "é", "nul": "A", "big": "9223372036854775807", "real": "1.5", "missing": ""});
            said("done", 0, "", json!([row]))
        }
        "lq_err" => said("failed", 1, "no such table: nosuch", json!([])),
        other => panic!("nothing was recorded of {other}"),
    }
}
