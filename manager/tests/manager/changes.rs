//! What forms change, what the audit log says of it, and what it must not say.

use axum::http::StatusCode;

use super::sample::{self, FINDING, NODE};
use super::world::{PASSWORD, World};

async fn audit(world: &World) -> String {
    let entries = world.test_db.texts(
        "SELECT concat_ws(' ', user_name, action, subject_name, before::text, after::text) FROM audit_entries ORDER BY id",
    );
    entries.await.join("\n")
}

#[tokio::test]
async fn a_refused_form_keeps_what_was_typed_and_says_what_is_wrong() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let fields = [
        ("name", "my/pack"),
        ("target", "prod and"),
        ("shard", "200"),
        ("description", "kept <b>"),
        ("enabled", "on"),
    ];
    let answer = browser.post("/packs", &fields).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    for text in [
        "my/pack",
        "prod and",
        "kept &lt;b&gt;",
        "names of results",
        "from 1 to 100",
        "is missing at character 9",
    ] {
        let slashed = text.replace('/', "&#x2f;");
        assert!(
            answer.body.contains(text) || answer.body.contains(&slashed),
            "{text} is missing in {}",
            answer.body
        );
    }
    assert!(
        world
            .test_db
            .texts("SELECT name FROM packs WHERE NOT built_in")
            .await
            .is_empty()
    );
    world.end().await;
}

#[tokio::test]
async fn a_pack_is_made_changed_and_deleted_by_its_name() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let pack = browser
        .post(
            "/packs",
            &[("name", "it"), ("target", "prod"), ("enabled", "on")],
        )
        .await
        .location;
    assert!(pack.starts_with("/packs/"));
    let query = [
        ("name", "ports"),
        ("sql", "SELECT 1;"),
        ("interval_seconds", "60"),
        ("kind", "snapshot"),
        ("enabled", "on"),
    ];
    assert_eq!(
        browser
            .post(&format!("{pack}/queries"), &query)
            .await
            .location,
        pack
    );
    let again = browser.post(&format!("{pack}/queries"), &query).await;
    assert!(again.body.contains("already a query of this name"));
    assert!(browser.get(&pack).await.body.contains("SELECT 1"));
    browser
        .post(&format!("{pack}/delete"), &[("confirm", "something else")])
        .await;
    assert_eq!(
        world
            .test_db
            .texts("SELECT name FROM packs WHERE NOT built_in")
            .await,
        ["it"]
    );
    assert_eq!(
        browser
            .post(&format!("{pack}/delete"), &[("confirm", "it")])
            .await
            .location,
        "/packs"
    );
    assert!(
        world
            .test_db
            .texts("SELECT name FROM queries WHERE name = 'ports'")
            .await
            .is_empty()
    );
    let log = audit(&world).await;
    for part in [
        "editor packs.create it",
        "editor queries.create ports",
        "editor packs.delete it",
        "SELECT 1",
    ] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_parts_of_a_config_are_made_and_changed() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    type Made<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let made: [Made<'_>; 5] = [
        (
            "/file-paths",
            &[
                ("category", "etc"),
                ("globs", "/etc/%%\n\n/opt/%"),
                ("target", ""),
                ("enabled", "on"),
            ],
            "/etc/%%",
        ),
        (
            "/options",
            &[
                ("name", "--logger_tls_period"),
                ("value", "10"),
                ("target", "prod"),
                ("priority", ""),
            ],
            "logger_tls_period",
        ),
        (
            "/decorators",
            &[
                ("name", "host"),
                ("moment", "interval"),
                ("interval_seconds", "120"),
                ("sql", "SELECT 1"),
                ("enabled", "on"),
            ],
            "SELECT 1",
        ),
        (
            "/queries",
            &[
                ("name", "users"),
                ("sql", "SELECT 2"),
                ("interval_seconds", "60"),
                ("kind", "differential_added"),
                ("enabled", "on"),
            ],
            "SELECT 2",
        ),
        ("/tags", &[("name", "prod"), ("description", "d")], "prod"),
    ];
    for (path, fields, shown) in made {
        let answer = browser.post(path, fields).await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (StatusCode::SEE_OTHER, path),
            "{path}: {}",
            answer.body
        );
        let list = browser.get(path).await.body;
        assert!(
            list.contains(shown) || list.contains(&shown.replace('/', "&#x2f;")),
            "{path}: {list}"
        );
        assert_eq!(
            browser.post(path, fields).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{path}: the name is taken"
        );
    }
    for (path, fields) in [
        (
            "/decorators",
            &[
                ("name", "x"),
                ("moment", "interval"),
                ("interval_seconds", "90"),
                ("sql", "SELECT 1"),
            ][..],
        ),
        ("/options", &[("name", "read_max"), ("value", "1.5")]),
        ("/options", &[("name", "pack_delimiter"), ("value", "_")]),
        ("/file-paths", &[("category", "x"), ("globs", "  ")]),
        (
            "/queries",
            &[
                ("name", "x"),
                ("sql", "SELECT 1"),
                ("interval_seconds", "0"),
                ("kind", "snapshot"),
            ],
        ),
        ("/tags", &[("name", "two words")]),
    ] {
        assert_eq!(
            browser.post(path, fields).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{path} {fields:?}"
        );
    }
    let id = world
        .test_db
        .texts("SELECT id::text FROM options")
        .await
        .pop()
        .unwrap();
    let changed = [
        ("name", "logger_tls_period"),
        ("value", "\"20\""),
        ("target", ""),
        ("priority", "5"),
    ];
    assert_eq!(
        browser
            .post(&format!("/options/{id}"), &changed)
            .await
            .status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(
        world.test_db.texts("SELECT value::text FROM options").await,
        ["\"20\""]
    );
    world.end().await;
}

#[tokio::test]
async fn a_tag_that_a_target_names_is_neither_renamed_nor_deleted() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let tag = "/tags/01900000-0000-7000-8000-0000000000a1";
    assert_eq!(
        browser.post(tag, &[("name", "production")]).await.status,
        StatusCode::SEE_OTHER
    );
    browser
        .post(
            "/packs",
            &[
                ("name", "p"),
                ("target", "not Production"),
                ("enabled", "on"),
            ],
        )
        .await;
    let answer = browser.post(tag, &[("name", "live")]).await;
    assert!(answer.body.contains("pack p"), "{}", answer.body);
    browser
        .post(&format!("{tag}/delete"), &[("confirm", "production")])
        .await;
    assert_eq!(
        world.test_db.texts("SELECT name FROM tags").await,
        ["production"]
    );
    world.end().await;
}

#[tokio::test]
async fn a_tag_that_a_denial_or_the_base_of_a_roll_out_names_stays() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let id = async |name: &str| {
        let sql = format!("SELECT id::text FROM tags WHERE name = '{name}'");
        world.test_db.texts(&sql).await.concat()
    };
    // The shipped denial is for laptops.
    browser.post("/tags", &[("name", "laptop")]).await;
    let laptop = format!("/tags/{}", id("laptop").await);
    let answer = browser.post(&laptop, &[("name", "notebook")]).await;
    assert!(answer.body.contains("denial of tables"), "{}", answer.body);
    browser
        .post(&format!("{laptop}/delete"), &[("confirm", "laptop")])
        .await;
    assert!(!id("laptop").await.is_empty());
    // Nodes outside of the roll-out are still chosen by the tag.
    let option = |target: &'static str, saving: &'static str| {
        [
            ("name", "read_max"),
            ("value", "1000"),
            ("target", target),
            ("saving", saving),
        ]
    };
    browser.post("/options", &option("prod", "once")).await;
    let made = "SELECT id::text FROM options";
    let path = format!("/options/{}", world.test_db.texts(made).await.concat());
    browser.post(&path, &option("lab", "stages")).await;
    let active = "SELECT id::text FROM rollouts WHERE ended_at IS NULL";
    let rollout = world.test_db.texts(active).await.concat();
    let prod = format!("/tags/{}", id("prod").await);
    let answer = browser.post(&prod, &[("name", "live")]).await;
    assert!(
        answer.body.contains("option read_max as the nodes outside"),
        "{}",
        answer.body
    );
    browser
        .post(&format!("/rollouts/{rollout}/finish"), &[])
        .await;
    let answer = browser.post(&prod, &[("name", "live")]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    world.end().await;
}

#[tokio::test]
async fn a_node_is_named_tagged_switched_off_and_deleted() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    sample::one_of_everything(&world).await;
    let node = format!("/nodes/{NODE}");
    browser
        .post(&format!("{node}/name"), &[("display_name", "Ann's laptop")])
        .await;
    browser
        .post(&format!("{node}/tags"), &[("add", "lab")])
        .await;
    browser
        .post(
            "/nodes/tags",
            &[
                ("node", NODE),
                ("tag", "prod"),
                ("do", "remove"),
                ("back", "q=a"),
            ],
        )
        .await;
    browser.post(&format!("{node}/disable"), &[]).await;
    browser.post(&format!("{node}/revoke-keys"), &[]).await;
    let page = browser.get(&node).await.body;
    assert!(
        page.contains("Ann&#x27;s laptop") && page.contains("lab") && page.contains("disabled"),
        "{page}"
    );
    let keys = world
        .test_db
        .texts("SELECT id::text FROM node_keys WHERE revoked_at IS NOT NULL")
        .await;
    assert_eq!(keys.len(), 1);
    assert_eq!(
        browser
            .post(&format!("{node}/delete"), &[("confirm", "Ann's laptop")])
            .await
            .location,
        "/nodes"
    );
    assert_eq!(browser.get(&node).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        browser.get(&format!("/findings/{FINDING}")).await.status,
        StatusCode::OK,
        "its finding stays"
    );
    let log = audit(&world).await;
    for action in [
        "nodes.rename",
        "nodes.add_tag",
        "nodes.remove_tag",
        "nodes.disable",
        "nodes.revoke_keys",
        "nodes.delete",
    ] {
        assert!(log.contains(action), "{action} is missing in {log}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_finding_is_acknowledged_resolved_and_reopened() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    for (verb, state) in [
        ("acknowledge", "acknowledged"),
        ("resolve", "resolved"),
        ("reopen", "open"),
        ("reopen", "open"),
    ] {
        let answer = browser
            .post(&format!("/findings/{FINDING}/{verb}"), &[])
            .await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(
            world.test_db.texts("SELECT state FROM findings").await,
            [state]
        );
    }
    let log = audit(&world).await;
    assert_eq!(
        log.matches("findings.").count(),
        3,
        "deciding what was decided is no change: {log}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_rule_with_wrong_conditions_is_not_saved() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let rule = |conditions| {
        [
            ("name", "r"),
            ("severity", "high"),
            ("conditions", conditions),
            ("max_age_seconds", "60"),
            ("scope", ""),
            ("enabled", "on"),
            ("destinations", sample::DESTINATION),
        ]
    };
    for wrong in [
        "{",
        "[]",
        r#"{"condition": "AND", "rules": [{"field": "nothing", "operator": "equal", "value": "x"}]}"#,
    ] {
        let answer = browser.post("/rules", &rule(wrong)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let right = r#"{"condition": "AND", "rules": [{"field": "column", "operator": "column_equal", "value": ["port", "22"]}]}"#;
    let made = browser.post("/rules", &rule(right)).await;
    assert!(made.location.starts_with("/rules/"), "{}", made.body);
    let shown = browser.get(&format!("{}/edit", made.location)).await.body;
    assert!(shown.contains("column_equal"));
    let sent = world.test_db.texts("SELECT destination_id::text FROM rule_destinations JOIN rules ON id = rule_id WHERE name = 'r'");
    assert_eq!(sent.await, [sample::DESTINATION]);
    world.end().await;
}

#[tokio::test]
async fn a_secret_is_shown_once_and_again_only_for_the_password() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let fields = [
        ("name", "laptops"),
        ("tags", "prod, lab"),
        ("expires_days", "30"),
        ("use_limit", ""),
    ];
    let created = browser.post("/enroll/secrets", &fields).await;
    assert_eq!(created.status, StatusCode::OK);
    let hmac = world
        .test_db
        .texts("SELECT encode(secret_hmac, 'hex') FROM enroll_secrets")
        .await
        .pop()
        .unwrap();
    let key = &world.app.settings.keys.enroll;
    let is_secret =
        |word: &&str| word.len() == 32 && hex::encode(key.hmac(word.as_bytes())) == hmac;
    let words = |text: &str| {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let secret = words(&created.body)
        .into_iter()
        .find(|word| is_secret(&word.as_str()))
        .expect("the secret is shown");
    assert!(!browser.get("/enroll").await.body.contains(&secret));
    let id = world
        .test_db
        .texts("SELECT id::text FROM enroll_secrets")
        .await
        .pop()
        .unwrap();
    let path = format!("/enroll/secrets/{id}/reveal");
    let refused = browser.post(&path, &[("password", "wrong")]).await;
    assert!(refused.status == StatusCode::UNPROCESSABLE_ENTITY && !refused.body.contains(&secret));
    assert!(
        browser
            .post(&path, &[("password", PASSWORD)])
            .await
            .body
            .contains(&secret)
    );
    assert_eq!(
        browser
            .post(&format!("/enroll/secrets/{id}/revoke"), &[])
            .await
            .status,
        StatusCode::SEE_OTHER
    );
    let log = audit(&world).await;
    assert!(
        log.contains("enroll_secrets.reveal laptops") && log.contains("enroll_secrets.revoke"),
        "{log}"
    );
    assert!(
        !log.contains(&secret) && !log.contains(PASSWORD),
        "the audit log holds no secret"
    );
    world.end().await;
}

#[tokio::test]
async fn what_is_secret_in_a_destination_is_never_shown_again() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let mail = [
        ("kind", "email"),
        ("name", "mail"),
        ("server", "127.0.0.1"),
        ("port", "2525"),
        ("encryption", "tls"),
        ("username", "u"),
        ("password", "hunter2-hunter2"),
        ("from", "a@example.com"),
        ("to", "b@example.com"),
        ("enabled", "on"),
    ];
    let answer = browser.post("/destinations", &mail).await;
    let made = answer.location;
    assert!(made.starts_with("/destinations/"), "{}", answer.body);
    let form = browser.get(&format!("{made}/edit")).await.body;
    assert!(
        form.contains("127.0.0.1") && form.contains("One is stored") && !form.contains("hunter2"),
        "{form}"
    );
    let changed = mail.map(|(name, value)| match name {
        "password" => (name, ""),
        "to" => (name, "c@example.com"),
        _ => (name, value),
    });
    assert_eq!(browser.post(&made, &changed).await.location, made);
    let id = made.rsplit('/').next().unwrap().parse().unwrap();
    let mut conn = world.app.db.acquire().await.unwrap();
    let stored = ostiary_manager::actions::destinations::open_settings(&world.app, &mut conn, id)
        .await
        .unwrap();
    drop(conn);
    assert_eq!(
        (&stored["password"], &stored["to"]),
        (&"hunter2-hunter2".into(), &"c@example.com".into())
    );
    let bad = browser
        .post(
            "/destinations",
            &[("kind", "email"), ("name", "x"), ("port", "0")],
        )
        .await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    browser.post(&format!("{made}/test"), &[]).await;
    assert!(
        browser
            .get(&made)
            .await
            .body
            .contains("The test was not taken"),
        "no address of our own network may be called"
    );
    assert!(!audit(&world).await.contains("hunter2"));
    let sealed = world
        .test_db
        .texts("SELECT encode(settings_sealed, 'escape') FROM destinations")
        .await;
    assert!(!sealed[0].contains("hunter2"));
    world.end().await;
}

#[tokio::test]
async fn a_live_query_says_whom_it_asks() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let nobody = browser
        .post(
            "/live-queries",
            &[("sql", "SELECT 1"), ("expires_minutes", "10")],
        )
        .await;
    assert!(
        nobody.status == StatusCode::UNPROCESSABLE_ENTITY
            && nobody.body.contains("Say which nodes")
    );
    let empty = browser
        .post(
            "/live-queries",
            &[("sql", " ;"), ("target", "*"), ("expires_minutes", "10")],
        )
        .await;
    assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields = [
        ("sql", "SELECT 1"),
        ("target", "prod"),
        ("expires_minutes", "10"),
        ("node_ids", NODE),
    ];
    let made = browser.post("/live-queries", &fields).await.location;
    let page = browser.get(&made).await.body;
    assert!(
        page.contains("SELECT 1") && page.contains("running"),
        "{page}"
    );
    assert_eq!(
        browser.post(&format!("{made}/cancel"), &[]).await.location,
        made
    );
    assert!(browser.get(&made).await.body.contains("cancelled"));
    let wire = world
        .test_db
        .texts("SELECT wire_id FROM live_queries WHERE wire_id <> 'lq-1'")
        .await;
    assert!(!wire[0].contains('.') && wire[0].len() < 64);
    world.end().await;
}
