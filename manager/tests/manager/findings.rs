//! What people do about findings: decide, comment, silence; one by one, many at once, by REST.

use axum::http::StatusCode;
use ostiary_domain::clock::Clock as _;
use serde_json::json;

use super::sample::{self, DESTINATION, FINDING, NODE, RULE, SILENCE};
use super::world::World;

/// A further finding of the sample's rule on its node.
async fn another(world: &World, number: u8, rest: &str) -> String {
    let id = format!("01900000-0000-7000-8000-00000000f{number:03}");
    world
        .test_db
        .execute(&format!(
            "INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at,
                last_matched_at)
             VALUES ('{id}', '{RULE}', 'New port', '{NODE}', 'web-1', '\\xff{number:02}', 'port: {number}', 'low', 'open', now(), now());
             {rest}"
        ))
        .await;
    id
}

async fn states(world: &World) -> Vec<String> {
    world
        .test_db
        .texts("SELECT state FROM findings ORDER BY opened_at, id")
        .await
}

#[tokio::test]
async fn a_decision_stands_in_the_timeline_and_is_told_to_those_who_were_told() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let to = |verb| format!("/findings/{FINDING}/{verb}");
    let said = [("comment", "I look at it")];
    browser.post(&to("acknowledge"), &said).await;
    browser
        .post(&to("comment"), &[("comment", "it is nc")])
        .await;
    browser.post(&to("comment"), &[("comment", " ")]).await;
    browser.post(&to("resolve"), &[]).await;
    assert_eq!(
        world
            .test_db
            .texts("SELECT concat_ws('|', kind, user_name, text) FROM finding_entries ORDER BY id OFFSET 3")
            .await,
        [
            "acknowledged|editor|I look at it",
            "told||acknowledged",
            "commented|editor|it is nc",
            "resolved|editor|",
            "told||resolved"
        ]
    );
    assert_eq!(
        world
            .test_db
            .texts("SELECT concat_ws('|', a.kind, a.body -> 'change' ->> 'by', d.state) FROM alerts a JOIN deliveries d ON d.alert_id = a.id ORDER BY a.id")
            .await,
        ["opened|delivered", "acknowledged|editor|waiting", "resolved|editor|waiting"]
    );
    let page = browser.get(&format!("/findings/{FINDING}")).await.body;
    for expected in [
        "Acknowledged by editor",
        "I look at it",
        "editor wrote",
        "it is nc",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    // Whoever comes second sees who was first.
    let answer = browser.post(&to("resolve"), &[]).await;
    let page = browser.get(&answer.location).await.body;
    assert!(page.contains("editor resolved it already"), "{page}");
    world.end().await;
}

#[tokio::test]
async fn many_are_decided_at_once_and_one_that_cannot_be_does_not_keep_the_others_from_it() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let other = another(&world, 1, "").await;
    let answer = browser
        .post(
            "/findings/decide",
            &[
                ("ids", FINDING),
                ("ids", &other),
                ("ids", "01900000-0000-7000-8000-00000000ffff"),
                ("decision", "resolve"),
                ("comment", "the migration"),
                ("state", "open"),
            ],
        )
        .await;
    assert_eq!(answer.location, "/findings?state=open");
    assert_eq!(states(&world).await, ["resolved", "resolved"]);
    let page = browser.get("/findings").await.body;
    assert!(page.contains("2 resolved. There is no finding"), "{page}");
    assert_eq!(
        world
            .test_db
            .texts("SELECT action FROM audit_entries WHERE action LIKE 'findings.%'")
            .await
            .len(),
        2
    );
    let none = browser
        .post("/findings/decide", &[("decision", "resolve")])
        .await;
    let page = browser.get(&none.location).await.body;
    assert!(page.contains("Choose at least one finding."), "{page}");
    world.end().await;
}

#[tokio::test]
async fn a_program_decides_comments_and_silences() {
    let world = World::new().await;
    world.user("ann", "editor").await;
    world.user("bob", "viewer").await;
    let (token, viewer) = (world.token("ann").await, world.token("bob").await);
    sample::one_of_everything(&world).await;
    let path = format!("/api/v1/findings/{FINDING}");
    let post =
        async |path: &str, body: serde_json::Value| world.post_json(path, &token, &body).await;
    let refused = world
        .post_json(&format!("{path}/resolve"), &viewer, &json!({}))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let done = post(&format!("{path}/acknowledge"), json!({"comment": "mine"})).await;
    assert_eq!(done.json(), json!({"changed": true}));
    let again = post(&format!("{path}/acknowledge"), json!({})).await.json();
    assert_eq!(again["changed"], json!(false));
    assert!(
        again["said"]
            .as_str()
            .unwrap()
            .starts_with("ann acknowledged it already")
    );
    let written = post(&format!("{path}/comment"), json!({"comment": "hm"})).await;
    assert_eq!(written.status, StatusCode::NO_CONTENT);
    let shown = world.get_json(&path, &token).await.json();
    let written = shown["timeline"].as_array().unwrap().iter();
    let mut written = written.filter(|entry| entry["kind"] == "commented");
    assert!(written.any(|entry| entry["text"] == "hm" && entry["who"] == "ann"));
    let decided = json!({"ids": [FINDING], "decision": "resolve"});
    assert_eq!(
        post("/api/v1/findings/decide", decided).await.json(),
        json!({"changed": 1, "already": 0, "refused": []})
    );

    let wrong = post(
        "/api/v1/silences",
        json!({"reason": "x", "ends_at": "2001-01-01T00:00:00Z"}),
    )
    .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    for part in ["A silence about everything", "in the past"] {
        let body = wrong.body.to_lowercase();
        assert!(body.contains(&part.to_lowercase()), "{part}: {body}");
    }
    let ends_at = world.clock.now() + chrono::TimeDelta::hours(1);
    let draft = json!({"rule": RULE, "reason": "a migration", "ends_at": ends_at.to_rfc3339()});
    let made = post("/api/v1/silences", draft).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let on = world.get_json("/api/v1/silences", &token).await.json();
    assert_eq!(on["items"].as_array().unwrap().len(), 2);
    let ended = post(&format!("/api/v1/silences/{id}/end"), json!({})).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    let gone = post(&format!("/api/v1/silences/{id}/end"), json!({})).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let ended = world
        .get_json("/api/v1/silences?ended=true", &token)
        .await
        .json();
    assert_eq!(ended["items"][0]["ended_by"], "ann");
    world.end().await;
}

#[tokio::test]
async fn a_silence_is_made_and_ended_on_its_pages() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let overview = browser.get("/").await.body;
    assert!(overview.contains("1 silence is on"), "{overview}");
    let wrong = browser
        .post(
            "/silences",
            &[
                ("target", "prod and"),
                ("reason", "while we move"),
                ("ends_at", ""),
            ],
        )
        .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("while we move") && wrong.body.contains("every silence ends"));
    let ends_at = (world.clock.now() + chrono::TimeDelta::hours(1))
        .format("%Y-%m-%dT%H:%M")
        .to_string();
    let fields = [
        ("target", "prod"),
        ("reason", "while we move"),
        ("ends_at", ends_at.as_str()),
    ];
    let made = browser.post("/silences", &fields).await;
    assert_eq!(made.location, "/silences");
    let ended = browser.post(&format!("/silences/{SILENCE}/end"), &[]).await;
    assert_eq!(ended.location, "/silences");
    let page = browser.get("/silences").await.body;
    assert!(
        page.contains("while we move") && page.contains("Ended"),
        "{page}"
    );
    let log = world
        .test_db
        .texts("SELECT action FROM audit_entries WHERE action LIKE 'silences.%' ORDER BY id")
        .await;
    assert_eq!(log, ["silences.create", "silences.end"]);
    world.end().await;
}

#[tokio::test]
async fn what_a_finding_of_the_fleet_took_in_is_listed_with_it_and_decided_with_it() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let member = another(&world, 1, "").await;
    let fleet = "01900000-0000-7000-8000-00000000f999";
    world
        .test_db
        .execute(&format!(
            "INSERT INTO findings (id, rule_id, rule_name, node_name, entity_hash, entity, severity, state, opened_at, last_matched_at,
                on_fleet)
             VALUES ('{fleet}', '{RULE}', 'New port', 'The fleet', '', 'many nodes at once', 'low', 'open', now(), now(), true);
             UPDATE findings SET fleet_finding_id = '{fleet}' WHERE id = '{member}'"
        ))
        .await;
    let list = browser.get("/findings").await.body;
    assert!(list.contains(fleet) && !list.contains(&member), "{list}");
    let within = browser
        .get(&format!("/findings?state=all&within={fleet}"))
        .await
        .body;
    assert!(within.contains(&member), "{within}");
    let found = browser.get("/findings?q=many+nodes").await.body;
    assert!(found.contains(fleet) && !found.contains(FINDING), "{found}");
    let page = browser.get(&format!("/findings/{fleet}")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("port: 1"), "{}", page.body);
    // This one was told before many nodes had it.
    world
        .test_db
        .execute(&format!(
            "WITH told AS (
                INSERT INTO alerts (id, finding_id, kind, body, created_at)
                VALUES (gen_random_uuid(), '{member}', 'opened', '{{}}', now()) RETURNING id)
             INSERT INTO deliveries (id, alert_id, finding_id, destination_id, destination_name, destination_kind, state, due_at,
                created_at)
             SELECT gen_random_uuid(), id, '{member}', '{DESTINATION}', 'mail', 'email', 'delivered', now(), now() FROM told"
        ))
        .await;
    browser
        .post(&format!("/findings/{fleet}/resolve"), &[])
        .await;
    assert_eq!(
        world
            .test_db
            .texts(&format!(
                "SELECT kind FROM alerts WHERE finding_id = '{member}' ORDER BY kind"
            ))
            .await,
        ["opened", "resolved"]
    );
    assert_eq!(
        world
            .test_db
            .texts("SELECT id::text FROM findings WHERE state = 'resolved' ORDER BY id")
            .await,
        [member.as_str(), fleet]
    );
    world.end().await;
}
