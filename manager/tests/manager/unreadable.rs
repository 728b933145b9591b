//! Unreadable data leave the house as they were sent, and never unnoticed.

use axum::http::StatusCode;
use ostiary_domain::ids::NodeId;
use ostiary_store::log_batches::compress;
use ostiary_store::unreadable::{self, NewUnreadable};
use serde_json::Value;
use uuid::Uuid;

use crate::sample::{self, NODE};
use crate::world::World;

#[tokio::test]
async fn unreadable_data_are_exported_as_lines_and_every_download_is_in_the_audit_log() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let node: NodeId = NODE.parse().unwrap();
    let items: Vec<NewUnreadable> = (0..45_u8)
        .map(|n| NewUnreadable {
            id: Uuid::from_u128(u128::from(n) + 1),
            node_id: node,
            batch_id: Some(i64::from(n)),
            log_type: "result".into(),
            received_at: world.app.now(),
            reason: format!("reason {n}"),
            data: compress(&match n {
                7 => b"\xff\x00".to_vec(),
                // Of 17 MiB, and the 16th ends within a character.
                9 => format!("x{}", "é".repeat(17 << 19)).into_bytes(),
                _ => b"{\"a\":\n\"=cmd\"}".to_vec(),
            }),
        })
        .collect();
    unreadable::insert(&mut world.test_db.db.acquire().await.unwrap(), &items)
        .await
        .unwrap();
    let mut browser = world.browser_as("viewer").await;
    let page = browser.get("/unreadable").await;
    assert!(page.body.contains("/unreadable/export"), "{}", page.body);
    let export = browser
        .get(&format!("/unreadable/export?node={NODE}"))
        .await;
    assert_eq!(export.status, StatusCode::OK);
    let name = format!("attachment; filename=\"unreadable-{NODE}.jsonl\"");
    assert_eq!(export.headers["content-disposition"], name.as_str());
    let lines: Vec<Value> = export
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 46, "those, and that of the sample");
    let line = |reason: &str| lines.iter().find(|line| line["reason"] == reason).unwrap();
    assert_eq!(line("reason 7")["data_base64"], "/wA=");
    assert_eq!(line("reason 8")["data"], "{\"a\":\n\"=cmd\"}");
    assert_eq!(line("reason 8")["truncated"], Value::Null);
    let large = line("reason 9");
    assert_eq!(large["truncated"], true);
    assert_eq!(large["data"].as_str().unwrap().len(), (16 << 20) - 1);
    let other = browser
        .get("/unreadable/export?node=01900000-0000-7000-8000-00000000ffff")
        .await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let data = browser
        .get(&format!("/unreadable/{}/data", Uuid::from_u128(9)))
        .await;
    assert_eq!(data.body, "{\"a\":\n\"=cmd\"}");
    let token = world.token("viewer").await;
    let listed = world
        .get_json("/api/v1/unreadable?limit=2", &token)
        .await
        .json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(listed["dropped"]["items"], 0);
    let all = world.get_json("/api/v1/unreadable/export", &token).await;
    assert_eq!(all.body.lines().count(), 46);
    let audited = "SELECT action || ' ' || subject_id FROM audit_entries WHERE action LIKE 'unreadable.%' ORDER BY at, id";
    assert_eq!(
        world.test_db.texts(audited).await,
        [
            format!("unreadable.export {NODE}"),
            format!("unreadable.download {}", Uuid::from_u128(9)),
            "unreadable.export ".to_owned(),
        ]
    );
    world.end().await;
}
