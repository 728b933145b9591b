//! Who is who: conflicts, approvals, and who depends on an enroll secret.

use axum::http::StatusCode;
use serde_json::json;

use super::sample::{self, HOSTILE, NODE};
use super::world::World;

const TWIN: &str = "01900000-0000-7000-8000-000000000002";
const WAITS: &str = "01900000-0000-7000-8000-000000000003";
const SECRET: &str = "01900000-0000-7000-8000-0000000000b2";

/// The sample's node, a twin of it, and a machine that waits and claims to be the sample's node.
async fn twins(world: &World) {
    sample::one_of_everything(world).await;
    world
        .test_db
        .execute(&format!(
            r#"
            INSERT INTO enroll_secrets (id, name, secret_hmac, secret_sealed, approval, expires_at, created_at)
                VALUES ('{SECRET}', 'laptops', '\x01', '', 'all', now() + interval '3 days', now());
            INSERT INTO nodes (id, host_identifier, hostname, hardware_uuid, instance_id, enrolled_at, first_enrolled_at, conflict_with,
                enroll_secret_id)
                VALUES ('{TWIN}', 'host-1', 'twin', 'u', '{HOSTILE}', now(), now(), '{NODE}', '{SECRET}');
            INSERT INTO node_conflicts (node_id, other_id, reason, noted_at) VALUES ('{TWIN}', '{NODE}', 'hardware', now());
            INSERT INTO nodes (id, host_identifier, hostname, instance_id, enrolled_at, first_enrolled_at, disabled_at, approval,
                approval_of, enroll_secret_id)
                VALUES ('{WAITS}', 'host-1', 'claimant', '{HOSTILE}', now(), now(), now(), 'waiting', '{NODE}', '{SECRET}');
            INSERT INTO node_keys (id, node_id, key_sha256, created_at) VALUES ('{WAITS}', '{WAITS}', '\x02', now());
            "#
        ))
        .await;
}

#[tokio::test]
async fn pages_show_both_sides_and_let_no_text_of_a_node_through() {
    let world = World::new().await;
    twins(&world).await;
    let mut viewer = world.browser_as("viewer").await;
    for (path, promised) in [
        ("/nodes/conflicts".to_owned(), "twin"),
        ("/nodes/approvals".into(), "claimant"),
        (format!("/nodes/{TWIN}"), "/nodes/conflicts"),
        (format!("/nodes/{WAITS}"), "/nodes/approvals"),
        (format!("/enroll/secrets/{SECRET}"), "twin"),
        ("/enroll/key-header".into(), "twin"),
        ("/enroll".into(), "laptops"),
        ("/".into(), "laptops"),
    ] {
        let answer = viewer.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        assert!(answer.body.contains(promised), "{path}: {}", answer.body);
        assert!(!answer.body.contains(HOSTILE), "{path}");
        assert!(
            answer.body.contains("1 to decide") && answer.body.contains("1 waiting"),
            "{path}: the side bar counts"
        );
    }
    let mut editor = world.browser_as("editor").await;
    for path in [
        "/nodes/conflicts/merge".to_owned(),
        "/nodes/conflicts/keep-apart".into(),
        format!("/nodes/{WAITS}/approve"),
        format!("/nodes/{WAITS}/refuse"),
        format!("/enroll/secrets/{SECRET}"),
    ] {
        let answer = editor.post(&path, &[("gone", TWIN), ("kept", NODE)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_admin_decides_and_the_audit_log_remembers() {
    let world = World::new().await;
    twins(&world).await;
    let mut admin = world.browser_as("admin").await;
    let waiting = [("gone", WAITS), ("kept", NODE)];
    admin.post("/nodes/conflicts/merge", &waiting).await;
    let enabled = admin.post(&format!("/nodes/{WAITS}/enable"), &[]).await;
    assert_ne!(
        enabled.status,
        StatusCode::SEE_OTHER,
        "it was never approved"
    );
    let nodes = "SELECT count(*)::text FROM nodes";
    assert_eq!(
        world.test_db.texts(nodes).await,
        ["3"],
        "who waits is not merged by the way"
    );
    let merge = [("gone", TWIN), ("kept", NODE)];
    let merged = admin.post("/nodes/conflicts/merge", &merge).await;
    assert_eq!(merged.location, format!("/nodes/{NODE}"), "{}", merged.body);
    let again = admin.post("/nodes/conflicts/merge", &merge).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    admin.post(&format!("/nodes/{WAITS}/refuse"), &[]).await;
    let page = admin.get("/nodes/approvals").await.body;
    assert!(
        page.contains("Approve after all") && page.contains("Nobody waits"),
        "{page}"
    );
    let same = format!("/nodes/{WAITS}/approve");
    let seen = |interval: &str| {
        format!("UPDATE node_checkins SET last_seen_at = now() - interval '{interval}'")
    };
    world.test_db.execute(&seen("9 minutes")).await;
    admin.post(&same, &[("as", "same")]).await;
    let page = admin.get("/nodes/approvals").await.body;
    assert!(page.contains("claims to be lives"), "{page}");
    assert_eq!(world.test_db.texts(nodes).await, ["2"]);
    world.test_db.execute(&seen("11 minutes")).await;
    let approved = admin.post(&same, &[("as", "same")]).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    let one = "SELECT concat_ws(' ', id, approval IS NULL, identity_reestablished_at IS NOT NULL,
        (SELECT count(*) FROM node_keys WHERE node_id = nodes.id)) FROM nodes";
    assert_eq!(world.test_db.texts(one).await, [format!("{NODE} t t 2")]);
    let fact = "SELECT concat_ws(' ', node_id, fact->>'name', fact->'columns'->>'reestablished', fact->'columns'->>'secret') FROM pending WHERE fact->>'name' = 'enrolled'";
    assert_eq!(
        world.test_db.texts(fact).await,
        [format!("{NODE} enrolled 1 laptops")]
    );
    let audit = "SELECT action FROM audit_entries WHERE action LIKE 'nodes.%' ORDER BY id";
    assert_eq!(
        world.test_db.texts(audit).await,
        ["nodes.merge", "nodes.refuse", "nodes.approve_as_same"]
    );
    world.end().await;
}

#[tokio::test]
async fn a_merge_whose_tags_could_cut_a_node_off_is_refused() {
    let world = World::new().await;
    twins(&world).await;
    let mut admin = world.browser_as("admin").await;
    let option = [
        ("name", "distributed_interval"),
        ("value", "0"),
        ("target", "quiet and prod"),
    ];
    let made = admin.post("/options", &option).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let path = format!("/nodes/{TWIN}/tags");
    admin.post(&path, &[("add", "quiet")]).await;
    let tagged = "SELECT count(*)::text FROM node_tags";
    assert_eq!(world.test_db.texts(tagged).await, ["2"]);
    let merge = [("gone", TWIN), ("kept", NODE)];
    let refused = admin.post("/nodes/conflicts/merge", &merge).await;
    let page = if refused.location.is_empty() {
        refused.body
    } else {
        admin.get(&refused.location).await.body
    };
    assert!(page.contains("distributed_interval"), "{page}");
    let nodes = "SELECT count(*)::text FROM nodes";
    assert_eq!(world.test_db.texts(nodes).await, ["3"]);
    world.end().await;
}

#[tokio::test]
async fn programs_read_conflicts_and_approvals_and_decide_as_people_do() {
    let world = World::new().await;
    twins(&world).await;
    world.user("robot", "admin").await;
    world.user("reader", "viewer").await;
    let (admin, viewer) = (world.token("robot").await, world.token("reader").await);
    let conflicts = world
        .get_json("/api/v1/nodes/conflicts", &viewer)
        .await
        .json();
    assert_eq!(conflicts["total"], 1);
    assert_eq!(conflicts["items"][0]["one"]["id"], TWIN);
    assert_eq!(conflicts["items"][0]["other"]["id"], NODE);
    assert_eq!(conflicts["items"][0]["facts"][1]["label"], "Hardware UUID");
    let approvals = world
        .get_json("/api/v1/nodes/approvals", &viewer)
        .await
        .json();
    assert_eq!(approvals["waiting"][0]["one"]["id"], WAITS);
    assert_eq!(approvals["waiting"][0]["other"]["id"], NODE);
    assert_eq!(approvals["refused"], json!([]));
    for (path, body, status, told) in [
        (
            "/api/v1/nodes/conflicts/merge".to_owned(),
            json!({"gone": WAITS, "kept": NODE}),
            StatusCode::UNPROCESSABLE_ENTITY,
            json!(null),
        ),
        (
            "/api/v1/nodes/conflicts/keep-apart".into(),
            json!({"one": TWIN, "other": NODE}),
            StatusCode::OK,
            json!({"kept_apart": [TWIN, NODE]}),
        ),
        (
            "/api/v1/nodes/conflicts/merge".into(),
            json!({"gone": TWIN, "kept": NODE}),
            StatusCode::OK,
            json!({"node_id": NODE}),
        ),
        (
            format!("/api/v1/nodes/{WAITS}/refuse"),
            json!({}),
            StatusCode::OK,
            json!({"node_id": WAITS, "approval": "refused"}),
        ),
        (
            format!("/api/v1/nodes/{WAITS}/approve"),
            json!({"as": "somebody"}),
            StatusCode::UNPROCESSABLE_ENTITY,
            json!(null),
        ),
        (
            format!("/api/v1/nodes/{WAITS}/approve"),
            json!({"as": "new"}),
            StatusCode::OK,
            json!({"node_id": WAITS, "approval": null}),
        ),
    ] {
        let refused = world.post_json(&path, &viewer, &body).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let answer = world.post_json(&path, &admin, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        if !told.is_null() {
            assert_eq!(answer.json(), told, "{path}");
        }
    }
    let audit = "SELECT user_name || ' ' || action FROM audit_entries WHERE action LIKE 'nodes.%' ORDER BY id";
    assert_eq!(
        world.test_db.texts(audit).await,
        [
            "robot nodes.keep_apart",
            "robot nodes.merge",
            "robot nodes.refuse",
            "robot nodes.approve"
        ]
    );
    world.end().await;
}

#[tokio::test]
async fn the_terms_of_a_secret_change_and_what_is_wrong_is_said_beside_its_field() {
    let world = World::new().await;
    twins(&world).await;
    let mut admin = world.browser_as("admin").await;
    let path = format!("/enroll/secrets/{SECRET}");
    let wrong = [
        ("expires_days", "soon"),
        ("approval", "perhaps"),
        ("use_limit", "7"),
    ];
    let refused = admin.post(&path, &wrong).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.body.contains("A whole number from")
            && refused.body.contains("There is no such choice"),
        "{}",
        refused.body
    );
    assert!(
        refused.body.contains("value=\"soon\""),
        "nothing typed is lost"
    );
    let right = [
        ("expires_days", ""),
        ("approval", "reestablished"),
        ("use_limit", "7"),
    ];
    assert_eq!(
        admin.post(&path, &right).await.status,
        StatusCode::SEE_OTHER
    );
    let terms =
        "SELECT concat_ws(' ', approval, expires_at IS NULL, use_limit) FROM enroll_secrets";
    assert_eq!(world.test_db.texts(terms).await, ["reestablished t 7"]);
    let twin = [("name", "PROD"), ("description", "")];
    let refused = admin.post("/tags", &twin).await;
    assert!(
        refused.body.contains("There is already a tag of this name"),
        "{}",
        refused.body
    );
    world.end().await;
}
