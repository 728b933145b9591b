//! Every section of a config through its form: what is refused and where it is said, what is kept, what nodes are to get.

use axum::http::StatusCode;
use ostiary_domain::node::NodeFacts;
use ostiary_store::config_parts;
use serde_json::{Value, json};

use super::world::{Answer, World};

/// The text of a page without the escapes of HTML that matter here.
fn words(answer: &Answer) -> String {
    let plain = [
        ("&quot;", "\""),
        ("&#x2f;", "/"),
        ("&#x27;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    plain
        .iter()
        .fold(answer.body.clone(), |text, (escaped, plain)| {
            text.replace(escaped, plain)
        })
}

/// The config of a node with these tags, as the api would assemble it.
async fn config(world: &World, tags: &[&str], version: &str) -> Value {
    let mut conn = world.app.db.acquire().await.unwrap();
    let parts = config_parts::load(&mut conn).await.unwrap();
    let node = NodeFacts {
        tags: tags.iter().map(ToString::to_string).collect(),
        platform: "linux".into(),
        osquery_version: version.into(),
        ..NodeFacts::default()
    };
    Value::Object(parts.assemble(&node))
}

#[tokio::test]
async fn pieces_of_one_key_are_edited_apart_and_merged_for_a_node() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let piece =
        |name: &'static str, value: &'static str, target: &'static str, priority: &'static str| {
            [
                ("key", "yara"),
                ("name", name),
                ("value", value),
                ("target", target),
                ("priority", priority),
                ("enabled", "on"),
            ]
        };
    for fields in [
        piece(
            "all",
            r#"{"signatures": {"g": ["/a"]}, "signature_urls": ["https://x/.*"]}"#,
            "",
            "",
        ),
        piece("prod", r#"{"signatures": {"g": ["/b"]}}"#, "prod", "5"),
    ] {
        let answer = browser.post("/sections", &fields).await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (StatusCode::SEE_OTHER, "/sections"),
            "{}",
            answer.body
        );
    }
    let merged = json!({"signatures": {"g": ["/a", "/b"]}, "signature_urls": ["https://x/.*"]});
    assert_eq!(config(&world, &["prod"], "5.23.1").await["yara"], merged);
    assert_eq!(
        config(&world, &[], "5.23.1").await["yara"]["signatures"]["g"],
        json!(["/a"])
    );

    let again = browser.post("/sections", &piece("all", "{}", "", "")).await;
    assert!(words(&again).contains("already a section of this key and name"));
    let id = &world
        .test_db
        .texts("SELECT id::text FROM config_sections WHERE name = 'prod'")
        .await[0];
    let form = browser.get(&format!("/sections/{id}/edit")).await;
    assert!(words(&form).contains("\"/b\"") && words(&form).contains("value=\"5\""));
    let changed = browser
        .post(
            &format!("/sections/{id}"),
            &piece("prod", r#"{"signatures": {"h": ["/c"]}}"#, "lab", ""),
        )
        .await;
    assert_eq!(changed.status, StatusCode::SEE_OTHER, "{}", changed.body);
    assert_eq!(
        config(&world, &["lab"], "").await["yara"]["signatures"],
        json!({"g": ["/a"], "h": ["/c"]})
    );
    let deleted = browser
        .post(&format!("/sections/{id}/delete"), &[("confirm", "prod")])
        .await;
    assert_eq!(deleted.location, "/sections");
    let actions = world
        .test_db
        .texts("SELECT action FROM audit_entries WHERE subject_kind = 'section' ORDER BY id")
        .await;
    assert_eq!(
        actions,
        [
            "sections.create",
            "sections.create",
            "sections.update",
            "sections.delete"
        ]
    );
    world.end().await;
}

#[tokio::test]
async fn a_piece_that_osquery_would_not_take_is_refused_where_it_is_wrong() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let cases = [
        ("options", "{}", "has a page of its own"),
        ("error", "{}", "means something else"),
        ("etag", "\"x\"", "means something else"),
        ("", "{}", "A top-level key is needed"),
        ("views", "{\"v\": ", "This is not JSON"),
        ("views", "[]", "views is an object"),
        ("views", "{\"v\": \"SELEC 1\"}", "v: "),
        (
            "auto_table_construction",
            r#"{"t": {"query": "SELECT a FROM b", "path": "/x", "columns": ["path"]}}"#,
            "adds it by itself",
        ),
        (
            "events",
            r#"{"disable_subscribers": "x"}"#,
            "is a list of texts",
        ),
    ];
    for (key, value, sentence) in cases {
        let fields = [
            ("key", key),
            ("name", "n"),
            ("value", value),
            ("description", "kept"),
            ("enabled", "on"),
        ];
        let answer = browser.post("/sections", &fields).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{key} {value}"
        );
        let text = words(&answer);
        assert!(text.contains(sentence), "{key} {value}: {text}");
        assert!(
            text.contains(value.trim()) && text.contains("kept"),
            "nothing typed is lost: {key} {value}"
        );
    }
    assert!(
        world
            .test_db
            .texts("SELECT name FROM config_sections")
            .await
            .is_empty()
    );
    let viewer = world.browser_as("viewer").await.get("/sections/new").await;
    assert_eq!(viewer.status, StatusCode::FORBIDDEN);
    world.end().await;
}

#[tokio::test]
async fn an_option_says_what_osquery_makes_of_it_and_is_reset_when_it_goes() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let option = |name: &'static str, value: &'static str| {
        [("name", name), ("value", value), ("target", "lab")]
    };
    let refused = browser
        .post("/options", &option("logger_tls_period", "often"))
        .await;
    assert!(
        words(&refused).contains("logger_tls_period is a whole number, 4 by default."),
        "{}",
        refused.body
    );
    for (name, value, note) in [
        ("events_max", "7", ""),
        ("carver_expiry", "60", "obeyed but for this"),
        ("disable_events", "true", "only when it starts"),
        ("brand_new_flag", "x", "does not know this flag"),
    ] {
        let made = browser.post("/options", &option(name, value)).await;
        assert_eq!(made.status, StatusCode::SEE_OTHER, "{name}: {}", made.body);
        let list = words(&browser.get("/options").await);
        assert!(list.contains(name) && list.contains(note), "{name}: {list}");
    }
    let form = words(&browser.get("/options/new").await);
    assert!(!form.contains("brand_new_flag") && form.contains("watchdog_level"));

    let ids = world
        .test_db
        .texts("SELECT id::text FROM options ORDER BY name")
        .await;
    for (id, name) in ids.iter().zip([
        "brand_new_flag",
        "carver_expiry",
        "disable_events",
        "events_max",
    ]) {
        let gone = browser
            .post(&format!("/options/{id}/delete"), &[("confirm", name)])
            .await;
        assert_eq!(gone.location, "/options", "{}", gone.body);
    }
    let expected = json!({"disable_events": false, "events_max": 50_000, "pack_delimiter": "/"});
    assert_eq!(config(&world, &["lab"], "").await["options"], expected);
    assert_eq!(
        config(&world, &[], "").await["options"],
        json!({"pack_delimiter": "/"})
    );
    let list = words(&browser.get("/options").await);
    assert!(
        list.contains("Being reset") && list.contains("only a restart of osqueryd undoes it"),
        "{list}"
    );

    browser.post("/options", &option("events_max", "9")).await;
    let left = || {
        world
            .test_db
            .texts("SELECT name FROM config_leftovers ORDER BY name")
    };
    assert_eq!(
        left().await,
        ["brand_new_flag", "carver_expiry", "disable_events"],
        "set anew is not left over"
    );
    let forgotten = [
        ("kind", "option"),
        ("name", "disable_events"),
        ("target", "lab"),
    ];
    assert_eq!(
        browser.post("/options/forget", &forgotten).await.location,
        "/options"
    );
    assert_eq!(left().await, ["brand_new_flag", "carver_expiry"]);
    assert_eq!(
        config(&world, &["lab"], "").await["options"],
        json!({"events_max": 9, "pack_delimiter": "/"})
    );
    world.end().await;
}

#[tokio::test]
async fn file_paths_may_come_from_queries_and_leave_no_exclusions_behind() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let sql = "SELECT directory || '/.ssh/%%' AS path FROM users";
    let keys = [
        ("category", "keys"),
        ("queries", sql),
        ("exclude_globs", "/root/.ssh/known_hosts"),
        ("enabled", "on"),
    ];
    let made = browser.post("/file-paths", &keys).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let etc = [("category", "etc"), ("globs", "/etc/%%"), ("enabled", "on")];
    browser.post("/file-paths", &etc).await;
    let before = config(&world, &[], "").await;
    assert_eq!(before["file_paths_query"], json!({"keys": [sql]}));
    assert_eq!(
        before["exclude_paths"],
        json!({"etc": [], "keys": ["/root/.ssh/known_hosts"]})
    );
    let wrong = [
        ("category", "bad"),
        ("queries", "SELEC path"),
        ("enabled", "on"),
    ];
    assert_eq!(
        browser.post("/file-paths", &wrong).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let none = [("category", "none"), ("enabled", "on")];
    assert!(
        words(&browser.post("/file-paths", &none).await).contains("At least one glob or query")
    );
    let id = &world
        .test_db
        .texts("SELECT id::text FROM file_paths WHERE category = 'keys'")
        .await[0];
    browser
        .post(&format!("/file-paths/{id}/delete"), &[("confirm", "keys")])
        .await;
    let after = config(&world, &[], "").await;
    assert!(after.get("file_paths_query").is_none());
    assert_eq!(after["exclude_paths"], json!({"etc": [], "keys": []}));
    world.end().await;
}

#[tokio::test]
async fn a_query_has_its_conditions_and_no_name_that_osquery_refuses() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let query = |name: &'static str| {
        [
            ("name", name),
            ("sql", "SELECT 1"),
            ("interval_seconds", "60"),
            ("kind", "snapshot"),
            ("startup_priority", "3"),
            ("shard", "100"),
            ("platform", "linux"),
            ("version", "4.0"),
            ("enabled", "on"),
        ]
    };
    for (name, sentence) in [
        ("query.x", "begin with query."),
        ("my_epoch", "end with epoch"),
        ("pack/it/usb", "those of queries in packs"),
    ] {
        let answer = browser.post("/queries", &query(name)).await;
        assert!(words(&answer).contains(sentence), "{name}: {}", answer.body);
    }
    let made = browser.post("/queries", &query("sadmind/iis worm")).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let mut expected = json!({"query": "SELECT 1", "interval": 60, "snapshot": true, "denylist": false, "startup_priority": 3,
        "platform": "linux", "version": "4.0", "shard": 100});
    let sent = |config: Value| config["schedule"]["sadmind/iis worm"].clone();
    assert_eq!(sent(config(&world, &[], "5.23.1").await), expected);
    expected["blacklist"] = false.into();
    assert_eq!(sent(config(&world, &[], "4.9.0").await), expected);

    let pack = [
        ("name", "it"),
        ("shard", "50"),
        ("discovery", "SELECT 1 FROM users\nSELEC 2"),
        ("enabled", "on"),
    ];
    let answer = browser.post("/packs", &pack).await;
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "a discovery is checked like any SQL"
    );
    let pack = [
        ("name", "it"),
        ("shard", "50"),
        ("discovery", "SELECT 1 FROM users"),
        ("enabled", "on"),
    ];
    let made = browser.post("/packs", &pack).await;
    assert!(words(&browser.get(&made.location).await).contains("Of these run it"));
    world.end().await;
}

#[tokio::test]
async fn what_not_every_osquery_understands_is_said_beside_what_was_saved() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let query = |name: &'static str, version: &'static str| {
        [
            ("name", name),
            ("sql", "SELECT 1"),
            ("interval_seconds", "60"),
            ("kind", "snapshot"),
            ("startup_priority", "1"),
            ("version", version),
            ("denylist", "on"),
            ("enabled", "on"),
            ("saving", "once"),
        ]
    };
    for (name, version, colon, start) in [("a:b", "", true, true), ("new", "5.17.0", false, false)]
    {
        let saved = browser.post("/queries", &query(name, version)).await;
        assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
        let page = browser.get("/queries").await.body;
        assert_eq!(
            page.contains("with colons between"),
            colon,
            "{name}: {page}"
        );
        assert_eq!(page.contains("before 5.17"), start, "{name}: {page}");
    }
    for (key, words) in [
        ("views", "before 2.4.5"),
        ("of_the_future", "does not know the key of_the_future"),
    ] {
        let section = [
            ("key", key),
            ("name", "x"),
            ("value", "{}"),
            ("saving", "once"),
        ];
        let saved = browser.post("/sections", &section).await;
        assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
        let page = browser.get("/sections").await.body;
        assert!(page.contains(words), "{key}: {page}");
    }
    world.end().await;
}
