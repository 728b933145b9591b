//! Sinks in the manager: what is typed, what is kept secret, and the buttons.

use axum::http::StatusCode;
use ostiary_outputs::sinks::KINDS;
use serde_json::{Value, json};

use super::world::World;

const SPLUNK: [(&str, &str); 8] = [
    ("kind", "splunk"),
    ("name", "siem"),
    ("url", "https://splunk.example.com:8088"),
    ("token", "T0p-Secret"),
    ("type_result", "on"),
    ("type_finding", "on"),
    ("queries", "pack/it/*\r\n\r\nusb"),
    ("enabled", "on"),
];

async fn column(world: &World, what: &str) -> String {
    let sql = format!("SELECT ({what})::text FROM sinks");
    world.test_db.texts(&sql).await.concat()
}

#[tokio::test]
async fn a_sink_is_made_changed_and_run_by_hand_and_its_secret_is_never_shown_again() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let answer = browser.post("/sinks", &SPLUNK).await;
    let made = answer.location;
    assert!(made.starts_with("/sinks/"), "{}", answer.body);
    assert_eq!(
        column(&world, "array_to_string(types, ' ')").await,
        "result finding"
    );
    assert_eq!(
        column(&world, "array_to_string(queries, ' ')").await,
        "pack/it/* usb"
    );
    let cursors = "SELECT source FROM sink_cursors ORDER BY source";
    assert_eq!(
        world.test_db.texts(cursors).await,
        ["events", "finding_changes"]
    );
    for page in [made.clone(), format!("{made}/edit"), "/sinks".to_owned()] {
        let body = browser.get(&page).await.body;
        assert!(
            body.contains("siem") && !body.contains("T0p-Secret"),
            "{page}: {body}"
        );
    }
    let changed = SPLUNK.map(|(name, value)| match name {
        "token" => (name, ""),
        "type_finding" => ("type_audit", value),
        _ => (name, value),
    });
    assert_eq!(browser.post(&made, &changed).await.location, made);
    assert_eq!(
        world.test_db.texts(cursors).await,
        ["audit_entries", "events"]
    );
    let id = made.rsplit('/').next().unwrap().parse().unwrap();
    let mut conn = world.app.db.acquire().await.unwrap();
    let stored = ostiary_manager::actions::sinks::open_settings(&world.app, &mut conn, id)
        .await
        .unwrap();
    drop(conn);
    assert_eq!(stored["token"], "T0p-Secret", "an empty field keeps it");

    assert_eq!(
        browser.post(&format!("{made}/pause"), &[]).await.location,
        made
    );
    assert_eq!(column(&world, "enabled").await, "false");
    assert!(browser.get(&made).await.body.contains("paused"));
    assert_eq!(
        browser.post(&format!("{made}/resume"), &[]).await.location,
        made
    );
    assert_eq!(column(&world, "enabled").await, "true");
    assert_eq!(
        browser.post(&format!("{made}/test"), &[]).await.location,
        made
    );
    assert_eq!(column(&world, "test_asked_at IS NOT NULL").await, "true");
    assert!(
        browser
            .get(&made)
            .await
            .body
            .contains("A test was asked for")
    );

    for (typed, is_good) in [
        ("tomorrow", false),
        ("2999-01-01T00:00", false),
        ("2020-01-01T09:30", true),
    ] {
        let answer = browser
            .post(&format!("{made}/replay"), &[("since", typed)])
            .await;
        let expected = if is_good {
            StatusCode::SEE_OTHER
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        assert_eq!(answer.status, expected, "{typed}");
        assert!(
            is_good || answer.body.contains(typed),
            "what was typed is still there"
        );
    }
    let wrong = browser
        .post(&format!("{made}/delete"), &[("confirm", "x")])
        .await;
    assert!(
        wrong.status == StatusCode::SEE_OTHER || wrong.status == StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(column(&world, "name").await, "siem");
    browser
        .post(&format!("{made}/delete"), &[("confirm", "siem")])
        .await;
    assert_eq!(column(&world, "name").await, "");
    let audit = "SELECT action FROM audit_entries WHERE subject_kind = 'sink' ORDER BY id";
    assert_eq!(
        world.test_db.texts(audit).await,
        [
            "sinks.create",
            "sinks.update",
            "sinks.pause",
            "sinks.resume",
            "sinks.send_test",
            "sinks.replay",
            "sinks.delete"
        ]
    );
    let secrets =
        "SELECT count(*)::text FROM audit_entries WHERE before::text || after::text LIKE '%T0p%'";
    assert_eq!(world.test_db.texts(secrets).await, ["0"]);
    world.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_at_its_field_and_nothing_typed_is_lost() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    for (name, value, told) in [
        ("name", "", "This must not be empty."),
        ("url", "ftp://splunk.example.com", "must begin with"),
        ("token", "", "This must not be empty."),
        ("target", "prod and", ""),
        ("type_result", "", "Choose at least one type."),
    ] {
        let mut fields: Vec<(&str, &str)> = SPLUNK
            .into_iter()
            .filter(|(field, _)| *field != name && *field != "type_finding")
            .collect();
        fields.push((name, value));
        if !name.starts_with("type") && !fields.iter().any(|(field, _)| *field == "type_result") {
            fields.push(("type_result", "on"));
        }
        let answer = browser.post("/sinks", &fields).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}");
        assert!(answer.body.contains(told), "{name}: {}", answer.body);
        assert!(
            answer.body.contains("\nusb"),
            "{name}: what was typed is still there"
        );
    }
    assert_eq!(column(&world, "count(*)").await, "0");
    browser.post("/sinks", &SPLUNK).await;
    let again = browser.post("/sinks", &SPLUNK).await;
    assert!(again.body.contains("There is already a sink of this name."));
    world.end().await;
}

#[tokio::test]
async fn every_kind_has_a_form_and_only_admins_have_them() {
    let world = World::new().await;
    let mut admin = world.browser_as("admin").await;
    let mut editor = world.browser_as("editor").await;
    for kind in KINDS {
        let form = format!("/sinks/new?kind={}", kind.name);
        let page = admin.get(&form).await;
        assert_eq!(page.status, StatusCode::OK, "{form}");
        for field in kind.fields {
            assert!(
                page.body.contains(&format!("name=\"{}\"", field.name)),
                "{form} {}",
                field.name
            );
        }
        assert_eq!(editor.get(&form).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(
        editor.post("/sinks", &SPLUNK).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(editor.get("/sinks").await.status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn programs_can_do_what_pages_can() {
    let world = World::new().await;
    world.user("admin", "admin").await;
    let token = world.token("admin").await;
    let wanted = json!({"name": "lake", "kind": "s3", "types": ["audit"], "fields": {"region": "x", "bucket": "lake",
        "access_key_id": "id", "secret_access_key": "key", "addressing": "path", "seconds": "60"}});
    let made = world.post_json("/api/v1/sinks", &token, &wanted).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    let path = format!("/api/v1/sinks/{}", made.json()["id"].as_str().unwrap());
    let shown = world.get_json(&path, &token).await.json();
    assert_eq!(shown["state"], "forwarding");
    assert_eq!(shown["sources"][0]["table"], "audit_entries");
    let since = json!({"since": "2026-01-01T00:00:00Z"});
    let replayed = world
        .post_json(&format!("{path}/replay"), &token, &since)
        .await;
    assert_eq!(replayed.status, StatusCode::OK, "{}", replayed.body);
    let behind = world.get_json("/api/v1/sinks", &token).await.json();
    let behind: &Value = &behind["items"][0];
    assert!(
        behind["behind"].as_i64().unwrap() > 0 && behind["oldest_at"].is_string(),
        "{behind}"
    );
    for action in ["pause", "resume", "test"] {
        let answer = world
            .post_json(&format!("{path}/{action}"), &token, &json!({}))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{action}: {}", answer.body);
    }
    let bad = json!({"name": "x", "kind": "s3", "types": ["carve"]});
    let refused = world.post_json("/api/v1/sinks", &token, &bad).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{}",
        refused.body
    );
    world.end().await;
}
