//! Who is who, through all programs: conflicts that are merged, enrollments that wait, offices with a bad host, keys by header.

use ostiary_tests::{
    Answer, PATIENCE, Program, Wire, World, WorldOptions, eventually, run_browser,
};
use serde_json::{Value, json};

/// The enrollment of a machine with this hardware and this osquery database.
fn machine(secret: &str, hardware: &str, instance: &str) -> Value {
    json!({
        "enroll_secret": secret, "host_identifier": format!("uuid-{hardware}"), "platform_type": "9",
        "host_details": {
            "os_version": {"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"},
            "osquery_info": {"uuid": format!("uuid-{hardware}"), "instance_id": instance, "version": "5.23.0", "build_platform": "linux"},
            "system_info": {"hostname": hardware, "uuid": format!("uuid-{hardware}"), "hardware_serial": format!("SN-{hardware}")}
        }
    })
}

fn key_of(answer: &Answer) -> String {
    answer.json()["node_key"]
        .as_str()
        .unwrap_or_else(|| panic!("no key: {:?}", answer.json()))
        .to_owned()
}

async fn enroll(world: &World, secret: &str, hardware: &str, instance: &str) -> String {
    let body = machine(secret, hardware, instance);
    key_of(&world.wire().post("/enroll", &body).await)
}

async fn report(wire: &Wire, key: &str, query: &str) -> Answer {
    let line = json!({"name": query, "action": "added", "columns": {"a": key}, "unixTime": 1_700_000_000, "hostIdentifier": "h"});
    wire.post(
        "/log",
        &json!({"node_key": key, "log_type": "result", "data": [line]}),
    )
    .await
}

/// What a person of the manager does, by forms in a browser.
async fn decide(world: &World, input: Value) -> Option<Value> {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody decides");
        return None;
    }
    let (user, password) = world.admin();
    let mut all = json!({"manager_url": format!("http://{}", world.manager), "user": user, "password": password});
    for (name, value) in input.as_object().unwrap() {
        all[name] = value.clone();
    }
    Some(run_browser("identity.mjs", &all).await)
}

async fn secret(world: &World, name: &str, approval: &str) -> String {
    let secret = format!("secret-{name}-0123456789");
    let arguments = ["create-enroll-secret", "--name", name, "--secret-stdin"];
    let with_approval = [&arguments[..], &["--approval", approval]].concat();
    world.command(&with_approval, &secret).await;
    secret
}

#[tokio::test]
async fn a_conflict_is_merged_and_both_keys_go_on_to_work() {
    let world = World::start(WorldOptions::default()).await;
    let (wire, secret) = (world.wire(), world.enroll_secret());
    let first = enroll(&world, secret, "laptop", "database-1").await;
    // Wiped while we think it alive: a node of its own.
    let second = enroll(&world, secret, "laptop", "database-2").await;
    for (key, query) in [(&first, "before"), (&second, "after")] {
        assert!(report(&wire, key, query).await.is_success());
    }
    world.worked_off().await;
    assert_eq!(world.scalar("SELECT count(*) FROM nodes").await, 2);
    assert_eq!(world.scalar("SELECT count(*) FROM node_conflicts").await, 1);
    let Some(seen) = decide(&world, json!({"merge": true})).await else {
        return world.end().await;
    };
    assert_eq!(seen["console"], json!([]), "{seen}");
    assert_eq!(seen["left"], 0, "{seen}");
    assert_eq!(world.scalar("SELECT count(*) FROM nodes").await, 1);
    for (key, query) in [(&first, "later-1"), (&second, "later-2")] {
        let config = wire.post("/config", &json!({"node_key": key})).await;
        assert!(config.is_success(), "{query}: {config:?}");
        assert!(report(&wire, key, query).await.is_success(), "{query}");
    }
    // Everything that either ever said is the one node's.
    eventually("the history is put together", PATIENCE, async || {
        let told = "SELECT count(*) FROM events JOIN nodes ON nodes.id = node_id";
        let all = "SELECT count(*) FROM events";
        (world.scalar(told).await == 4 && world.scalar(all).await == 4).then_some(())
    })
    .await;
    let again = enroll(&world, secret, "laptop", "database-2").await;
    assert_ne!(again, second);
    assert_eq!(world.scalar("SELECT count(*) FROM nodes").await, 1);
    let audited = "SELECT count(*) FROM audit_entries WHERE action = 'nodes.merge'";
    assert_eq!(world.scalar(audited).await, 1);
    world.end().await;
}

#[tokio::test]
async fn who_must_be_approved_waits_with_a_key_that_unlocks_nothing_and_loses_nothing() {
    let world = World::start(WorldOptions::default()).await;
    let wire = world.wire();
    let strict = secret(&world, "strict", "all").await;
    let key = enroll(&world, &strict, "newcomer", "database-1").await;
    let refused = enroll(&world, &strict, "stranger", "database-2").await;
    // While it waits every call fails softly: it keeps its key and its buffer, and does not enroll in a loop.
    for (path, body) in [
        ("/config", json!({"node_key": key})),
        (
            "/log",
            json!({"node_key": key, "log_type": "result", "data": []}),
        ),
        ("/distributed/read", json!({"node_key": key})),
        (
            "/distributed/write",
            json!({"node_key": key, "queries": {}}),
        ),
    ] {
        let answer = wire.post(path, &body).await;
        assert!(
            !answer.is_success() && !answer.is_node_invalid(),
            "{path}: {answer:?}"
        );
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    // Its threads race, or it restarts: another key of the same node.
    let other = enroll(&world, &strict, "newcomer", "database-1").await;
    let waiting = "SELECT count(*) FROM nodes WHERE approval = 'waiting'";
    assert_eq!(world.scalar(waiting).await, 2);
    world.worked_off().await;
    assert_eq!(
        world
            .scalar("SELECT count(*) FROM pending WHERE node_id IN (SELECT id FROM nodes)")
            .await,
        0,
        "no fact before the approval"
    );
    let Some(seen) = decide(&world, json!({"approve": "newcomer", "refuse": "stranger"})).await
    else {
        return world.end().await;
    };
    assert_eq!(seen["console"], json!([]), "{seen}");
    for key in [&key, &other] {
        eventually("the approved node is served", PATIENCE, async || {
            report(&wire, key, "kept").await.is_success().then_some(())
        })
        .await;
    }
    // The refused one is remembered: it is told nothing else, and asked about no more.
    let answer = report(&wire, &refused, "never").await;
    assert!(
        !answer.is_success() && !answer.is_node_invalid(),
        "{answer:?}"
    );
    let again = wire
        .post("/enroll", &machine(&strict, "stranger", "database-2"))
        .await;
    assert!(again.json()["node_key"].is_null(), "{again:?}");
    assert_eq!(world.scalar(waiting).await, 0);
    world.worked_off().await;
    assert!(world.scalar("SELECT count(*) FROM events").await >= 2);
    let audited =
        "SELECT count(*) FROM audit_entries WHERE action IN ('nodes.approve', 'nodes.refuse')";
    assert_eq!(world.scalar(audited).await, 2);
    world.end().await;
}

#[tokio::test]
async fn a_silent_nodes_identity_is_taken_over_only_with_an_approval_where_the_secret_says_so() {
    let options =
        WorldOptions::only(&[Program::Api, Program::Worker]).set("API__ALIVE_MINUTES", "0");
    let world = World::start(options).await;
    let wire = world.wire();
    let careful = secret(&world, "careful", "reestablished").await;
    let first = enroll(&world, &careful, "server", "database-1").await;
    assert!(report(&wire, &first, "before").await.is_success());
    let claimant = enroll(&world, &careful, "server", "database-2").await;
    let answer = report(&wire, &claimant, "not yet").await;
    assert!(
        !answer.is_success() && !answer.is_node_invalid(),
        "{answer:?}"
    );
    assert!(report(&wire, &first, "still").await.is_success());
    let claims = "SELECT count(*) FROM nodes w JOIN nodes k ON k.id = w.approval_of WHERE w.approval = 'waiting' AND k.approval IS NULL";
    assert_eq!(world.scalar(claims).await, 1);
    // A secret that does not ask: the same machine, wiped, and marked.
    let plain = world.enroll_secret();
    let before = enroll(&world, plain, "desktop", "database-3").await;
    let after = enroll(&world, plain, "desktop", "database-4").await;
    for key in [before, after] {
        assert!(report(&wire, &key, "desktop").await.is_success());
    }
    let marked = "SELECT count(*) FROM nodes WHERE hostname = 'desktop' AND identity_reestablished_at IS NOT NULL";
    assert_eq!(world.scalar(marked).await, 1);
    // A copied database on other hardware is never taken without a mark, either.
    let copied = machine(plain, "copy", "database-4");
    let copy = key_of(&wire.post("/enroll", &copied).await);
    assert!(report(&wire, &copy, "copy").await.is_success());
    assert_eq!(
        world
            .scalar("SELECT count(*) FROM nodes WHERE hostname IN ('desktop', 'copy')")
            .await,
        1
    );
    world.end().await;
}

#[tokio::test]
async fn one_bad_host_does_not_lock_its_office_out() {
    let options = WorldOptions::only(&[Program::Api])
        .set(
            "API__LIMITS__ENROLL_FAILURES_PER_ADDRESS",
            "{ burst = 10, per_second = 0.0001 }",
        )
        .set(
            "API__LIMITS__ENROLL_PER_HOST",
            "{ burst = 5, per_second = 0.0001 }",
        )
        .set(
            "API__LIMITS__UNKNOWN_KEYS_PER_ADDRESS",
            "{ burst = 5, per_second = 0.0001 }",
        );
    let world = World::start(options).await;
    let wire = world.wire();
    let key = enroll(&world, world.enroll_secret(), "colleague", "database").await;
    // Guesses secrets, each another one.
    let mut limited = 0;
    for guess in 0..30 {
        let body = machine(&format!("guess-{guess}-0123456789"), "bad", "database-b");
        let answer = wire.post("/enroll", &body).await;
        assert!(answer.json()["node_key"].is_null() && answer.json()["error"].is_string());
        limited += usize::from(answer.status == 429);
    }
    assert!(limited >= 15, "{limited}");
    // Knows the secret and enrolls in a loop.
    let body = machine(world.enroll_secret(), "looping", "database-l");
    let mut keys = 0;
    for _ in 0..20 {
        keys += usize::from(wire.post("/enroll", &body).await.json()["node_key"].is_string());
    }
    assert_eq!(keys, 5);
    // Invents keys: soon nobody looks them up any more.
    let mut invalid = 0;
    for stranger in 0..20 {
        let answer = wire
            .post(
                "/config",
                &json!({"node_key": format!("stranger-{stranger}")}),
            )
            .await;
        assert!(!answer.is_success());
        invalid += usize::from(answer.is_node_invalid());
    }
    assert_eq!(invalid, 5);
    // The others at the same address notice nothing of all that.
    for laptop in 0..10 {
        let key = enroll(
            &world,
            world.enroll_secret(),
            &format!("laptop-{laptop}"),
            &format!("i-{laptop}"),
        )
        .await;
        assert!(
            wire.post("/config", &json!({"node_key": key}))
                .await
                .is_success()
        );
    }
    assert!(
        wire.post("/config", &json!({"node_key": key}))
            .await
            .is_success()
    );
    // A key that was revoked is a node's: strangers have used up nothing of what it has a right to.
    world.db.execute("UPDATE node_keys SET revoked_at = now() WHERE node_id = (SELECT id FROM nodes WHERE hostname = 'colleague')").await;
    eventually(
        "the colleague is told to enroll again",
        PATIENCE,
        async || {
            let answer = wire.post("/config", &json!({"node_key": key})).await;
            answer.is_node_invalid().then_some(())
        },
    )
    .await;
    let again = enroll(&world, world.enroll_secret(), "colleague", "database").await;
    assert!(
        wire.post("/config", &json!({"node_key": again}))
            .await
            .is_success()
    );
    world.end().await;
}

#[tokio::test]
async fn the_key_of_the_header_is_looked_at_before_the_body_is_read() {
    let options = WorldOptions::only(&[Program::Api]).set("API__REQUIRE_KEY_HEADER", "true");
    let world = World::start(options).await;
    let wire = world.wire();
    let key = enroll(&world, world.enroll_secret(), "modern", "database").await;
    let other = enroll(&world, world.enroll_secret(), "another", "database-2").await;
    let config = json!({"node_key": key}).to_string();
    // An older client, without the header.
    let old = wire.post("/config", &json!({"node_key": key})).await;
    assert!(
        !old.is_success() && !old.is_node_invalid() && old.status == 401,
        "{old:?}"
    );
    let by_header = async |header: &str, body: &str| {
        let authorization = format!("NodeKey {header}");
        wire.request(
            "POST",
            "/config",
            &[("Authorization", &authorization)],
            body.as_bytes(),
        )
        .await
        .unwrap()
    };
    assert!(by_header(&key, &config).await.is_success());
    // Where the two disagree the body has the word (C5).
    assert!(by_header(&other, &config).await.is_success());
    assert!(by_header("stranger", &config).await.is_success());
    assert!(
        by_header(&key, r#"{"node_key":"a-stranger"}"#)
            .await
            .is_node_invalid()
    );
    assert!(
        by_header("nobody", r#"{"node_key":"nobody"}"#)
            .await
            .is_node_invalid()
    );
    assert!(
        by_header(&key, "{}").await.is_success(),
        "the header alone (C4)"
    );
    // A large body of an unknown key: the head is enough, nothing of the body needs to come.
    for path in [
        "/log",
        "/distributed/write",
        "/config",
        "/v1/distributed/read",
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: NodeKey stranger{}\r\nContent-Length: 50000000\r\n\r\n",
            path.len()
        );
        let bytes = wire.raw(head.as_bytes(), PATIENCE).await;
        let answer =
            Answer::parse(&bytes).unwrap_or_else(|| panic!("{path}: no answer without the body"));
        assert!(
            answer.is_node_invalid() || answer.json()["error"].is_string(),
            "{path}: {answer:?}"
        );
    }
    assert!(
        !world.log(Program::Api).contains(&key),
        "keys are in no log"
    );
    world.end().await;
}
