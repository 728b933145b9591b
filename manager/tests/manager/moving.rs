//! Moving in: configs in files, and having nodes send everything again.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::sample;
use super::world::{Answer, Browser, World};

const CONF: &str = r#"{
  // drift of a laptop
  "options": {"logger_tls_period": 10, "pack_delimiter": "_", "read_max": 1.5},
  "schedule": {"users": {"query": "SELECT * \
FROM users", "interval": 600}},
  # a pack within
  "packs": {
    "it/laptops": {"platform": "darwin", "shard": 50, "queries": {
      "usb": {"query": "SELECT * FROM usb_devices;", "interval": 60, "removed": false, "oncall": "it"},
      "apps": {"query": "SELECT * FROM apps", "interval": "300", "snapshot": true}
    }}
  },
  "decorators": {"load": ["SELECT uuid FROM system_info"], "interval": {"120": ["SELECT version FROM os_version"]}},
  "file_paths": {"etc": ["/etc/%%"]},
  "exclude_paths": {"etc": ["/etc/mtab"]},
  "views": {"kernel": "SELECT version FROM kernel_info"},
  "of_the_future": {"a": [1]}
}"#;

const OSX_LIKE: &str = include_str!("../../../tests/fixtures/moving/osx-like.conf");
const FLEETCTL: &str = include_str!("../../../tests/fixtures/moving/fleetctl.yml");

/// Uploads, and returns the page of the report.
pub(super) async fn shown(
    browser: &mut Browser<'_>,
    fields: &[(&str, &str)],
    file: (&str, &str),
) -> (String, Answer) {
    let answer = browser.upload("/packs/import", fields, file).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let page = browser.get(&answer.location).await;
    (answer.location, page)
}

pub(super) fn digest(page: &Answer) -> String {
    let (_, rest) = page
        .body
        .split_once("name=\"digest\" value=\"")
        .expect("the report has a digest");
    rest.split('"').next().unwrap().to_owned()
}

/// Uploads and applies what was shown.
pub(super) async fn import(
    browser: &mut Browser<'_>,
    fields: &[(&str, &str)],
    file: (&str, &str),
) -> (Answer, Answer) {
    let (place, page) = shown(browser, fields, file).await;
    let applied = browser
        .post(
            &format!("{place}/apply"),
            &[("digest", &digest(&page)), ("saving", "once")],
        )
        .await;
    (page, applied)
}

async fn summary(world: &World) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', coalesce(p.name, '-'), q.name, q.sql, q.interval_seconds, q.snapshot, q.removed, q.target) \
        FROM queries q LEFT JOIN packs p ON p.id = q.pack_id WHERE NOT coalesce(p.built_in, false) ORDER BY 1";
    world.test_db.texts(sql).await
}

#[tokio::test]
async fn a_config_is_shown_first_and_then_applied_whole_and_again_without_doubling() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    for round in 0..2 {
        let (place, page) = shown(&mut browser, &[("target", "prod")], ("all.conf", CONF)).await;
        for said in ["it-laptops", "read_max", "pack_delimiter", "of_the_future"] {
            assert!(
                round == 1 || page.body.contains(said),
                "nothing is said of {said}: {}",
                page.body
            );
        }
        assert_eq!(
            summary(&world).await.len(),
            if round == 0 { 0 } else { 3 },
            "looking changes nothing"
        );
        let applied = browser
            .post(
                &format!("{place}/apply"),
                &[("digest", &digest(&page)), ("saving", "once")],
            )
            .await;
        assert_eq!(
            applied.status,
            StatusCode::SEE_OTHER,
            "round {round}: {}",
            applied.body
        );
        assert_eq!(
            browser.get(&place).await.status,
            StatusCode::NOT_FOUND,
            "it is forgotten once it is applied"
        );
        let expected = [
            "- users SELECT * FROM users 600 f t prod",
            "it-laptops apps SELECT * FROM apps 300 t t ",
            "it-laptops usb SELECT * FROM usb_devices; 60 f f ",
        ];
        assert_eq!(summary(&world).await, expected, "round {round}");
        let texts = async |sql: &str| world.test_db.texts(sql).await;
        assert_eq!(
            texts("SELECT name || value::text FROM options").await,
            ["logger_tls_period10"]
        );
        assert_eq!(
            texts("SELECT name FROM decorators ORDER BY 1").await,
            ["interval 1", "load 1"]
        );
        assert_eq!(
            texts("SELECT globs::text || exclude_globs::text FROM file_paths").await,
            ["{/etc/%%}{/etc/mtab}"]
        );
        assert_eq!(
            texts("SELECT key || ' ' || target FROM config_sections ORDER BY 1").await,
            ["of_the_future prod", "views prod"]
        );
        assert_eq!(
            texts("SELECT extra::text FROM queries WHERE name = 'usb'").await,
            [r#"{"oncall": "it"}"#]
        );
    }
    let (_, page) = shown(&mut browser, &[("target", "prod")], ("all.conf", CONF)).await;
    assert!(
        page.body
            .contains("Everything is as the files want it already"),
        "{}",
        page.body
    );
    world.end().await;
}

#[tokio::test]
async fn what_a_file_does_not_have_is_removed_only_when_that_was_chosen() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    import(&mut browser, &[("target", "prod")], ("all.conf", CONF)).await;
    let smaller = CONF
        .replace("\"apps\":", "\"software\":")
        .replace("600", "900");
    let (page, _) = import(&mut browser, &[("target", "prod")], ("all.conf", &smaller)).await;
    assert!(
        page.body.contains("600") && page.body.contains("900") && !page.body.contains("pill-bad"),
        "old and new"
    );
    assert_eq!(
        summary(&world).await.len(),
        4,
        "nothing is removed by itself"
    );
    let only = r#"{"schedule": {}, "packs": {"it-laptops": {"queries": {"software": {"query": "SELECT * FROM apps", "interval": 300, "snapshot": true}}}}}"#;
    let (page, applied) = import(
        &mut browser,
        &[("target", "prod"), ("replace", "on")],
        ("only.conf", only),
    )
    .await;
    assert!(page.body.contains("pill-bad"), "{}", page.body);
    assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.body);
    assert_eq!(
        summary(&world).await,
        ["it-laptops software SELECT * FROM apps 300 t t "]
    );
    for table in ["options", "decorators", "file_paths", "config_sections"] {
        assert_eq!(
            world
                .test_db
                .texts(&format!("SELECT 'left' FROM {table}"))
                .await,
            [""; 0],
            "{table}"
        );
    }
    assert_eq!(
        world
            .test_db
            .texts("SELECT name FROM packs WHERE built_in")
            .await,
        ["ostiary"]
    );
    world.end().await;
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_only_as_it_was_shown() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let broken = browser
        .upload(
            "/packs/import",
            &[("target", "a b")],
            ("x.conf", "{\n\n  \"queries\": }"),
        )
        .await;
    assert_eq!(broken.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(broken.body.contains("line 3"), "{}", broken.body);
    let huge: String = (0..12)
        .map(|n| {
            format!(
                "\"q{n}\": {{\"query\": \"SELECT '{}'\", \"interval\": 60}},",
                "x".repeat(90_000)
            )
        })
        .collect();
    let huge = format!("{{\"queries\": {{{}}}}}", huge.trim_end_matches(','));
    let (_, refused) = import(&mut browser, &[("target", "")], ("huge.conf", &huge)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("1048576"));
    assert_eq!(
        world
            .test_db
            .texts("SELECT name FROM packs WHERE NOT built_in")
            .await,
        [""; 0]
    );

    let (place, page) = shown(&mut browser, &[("target", "prod")], ("all.conf", CONF)).await;
    let meanwhile = [
        ("name", "users"),
        ("sql", "SELECT 1"),
        ("interval_seconds", "60"),
        ("kind", "snapshot"),
        ("enabled", "on"),
        ("saving", "once"),
    ];
    assert_eq!(
        browser.post("/queries", &meanwhile).await.status,
        StatusCode::SEE_OTHER
    );
    let late = browser
        .post(
            &format!("{place}/apply"),
            &[("digest", &digest(&page)), ("saving", "once")],
        )
        .await;
    assert_eq!(late.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        late.body.contains("have moved on") && late.body.contains("changed"),
        "{}",
        late.body
    );
    assert_eq!(summary(&world).await.len(), 1, "nothing was done");
    let again = browser
        .post(
            &format!("{place}/apply"),
            &[("digest", &digest(&late)), ("saving", "once")],
        )
        .await;
    assert_eq!(
        again.status,
        StatusCode::SEE_OTHER,
        "what is shown now can be done: {}",
        again.body
    );

    let (place, _) = shown(&mut browser, &[("target", "prod")], ("all.conf", CONF)).await;
    world.user("other", "editor").await;
    assert_eq!(
        world.browser("other").await.get(&place).await.status,
        StatusCode::NOT_FOUND,
        "it is another's"
    );
    world.clock.advance(chrono::TimeDelta::minutes(61));
    assert_eq!(
        browser.get(&place).await.status,
        StatusCode::NOT_FOUND,
        "its hour is over"
    );
    world.end().await;
}

#[tokio::test]
async fn unsound_sql_comes_in_switched_off() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let conf = r#"{"queries": {"good": {"query": "SELECT * FROM users", "interval": 60},
        "bad": {"query": "DELETE FROM users", "interval": 60}, "typo": {"query": "SELECT * FORM users", "interval": 60}}}"#;
    let (page, applied) = import(&mut browser, &[], ("x.conf", conf)).await;
    assert!(
        page.body.contains("switched off") && applied.status == StatusCode::SEE_OTHER,
        "{}",
        page.body
    );
    let sql = "SELECT q.name || ' ' || q.enabled FROM queries q JOIN packs p ON p.id = q.pack_id WHERE p.name = 'x' ORDER BY 1";
    assert_eq!(
        world.test_db.texts(sql).await,
        ["bad false", "good true", "typo false"]
    );
    world.end().await;
}

#[tokio::test]
async fn more_sql_than_can_be_checked_while_somebody_waits_is_refused() {
    let world = World::new().await;
    world.user("editor", "editor").await;
    let token = world.token("editor").await;
    let schedule: serde_json::Map<String, Value> = (0..=5_000)
        .map(|n| {
            (
                format!("q{n}"),
                json!({"query": "SELECT 1", "interval": 60}),
            )
        })
        .collect();
    let text = json!({"schedule": schedule}).to_string();
    let body = json!({"files": [{"name": "x.conf", "text": text}], "target": ""});
    let answer = world
        .post_json("/api/v1/config/import", &token, &body)
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.body.contains("Import them in parts"),
        "{}",
        answer.body
    );
    world.end().await;
}

#[tokio::test]
async fn views_upon_views_of_other_packs_come_in_whatever_the_order() {
    let world = World::new().await;
    world.user("editor", "editor").await;
    let token = world.token("editor").await;
    let mut packs = serde_json::Map::new();
    for n in 0..4 {
        let view = match n {
            3 => "SELECT uid AS id FROM users".to_owned(),
            n => format!("SELECT id FROM view_{}", n + 1),
        };
        let name = format!("view_{n}");
        packs.insert(
            format!("p{n}"),
            json!({"queries": {"q": {"query": format!("SELECT id FROM {name}"), "interval": 60}}, "views": {name: view}}),
        );
    }
    let text = json!({"packs": packs}).to_string();
    let (_, notes) = rest_import(&world, &token, "", &[("x.conf", &text)]).await;
    assert!(
        !notes
            .iter()
            .any(|note| note.to_string().contains("switched off")),
        "{notes:?}"
    );
    world.end().await;
}

/// Imports by REST; returns the steps that were taken.
pub(super) async fn rest_import(
    world: &World,
    token: &str,
    target: &str,
    files: &[(&str, &str)],
) -> (Vec<Value>, Vec<Value>) {
    let files: Vec<Value> = files
        .iter()
        .map(|(name, text)| json!({"name": name, "text": text}))
        .collect();
    let mut body = json!({"files": files, "target": target});
    let shown = world.post_json("/api/v1/config/import", token, &body).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    let report = shown.json()["report"].clone();
    assert_eq!(shown.json()["applied"], false);
    body["digest"] = report["digest"].clone();
    body["saving"] = json!("once");
    let applied = world.post_json("/api/v1/config/import", token, &body).await;
    assert_eq!(applied.status, StatusCode::OK, "{}", applied.body);
    (
        report["steps"].as_array().unwrap().clone(),
        report["notes"].as_array().unwrap().clone(),
    )
}

#[tokio::test]
async fn packs_and_queries_of_fleet_come_in_files_of_their_own() {
    let world = World::new().await;
    world.user("editor", "editor").await;
    let token = world.token("editor").await;
    let packs = "kind: pack\nspec: {name: it, targets: {labels: [All Hosts]}, queries: [{query: users, interval: 60}]}\n";
    let queries = "kind: query\nspec: {name: users, query: SELECT * FROM users, interval: 0}\n";
    let files = [("packs.yml", packs), ("queries.yml", queries)];
    let (_, notes) = rest_import(&world, &token, "", &files).await;
    assert!(notes.is_empty(), "{notes:?}");
    let sql = "SELECT p.name || '/' || q.name FROM queries q JOIN packs p ON p.id = q.pack_id WHERE p.name = 'it'";
    assert_eq!(world.test_db.texts(sql).await, ["it/users"]);
    world.end().await;
}

#[tokio::test]
async fn a_round_trip_changes_nothing() {
    let world = World::new().await;
    world.user("editor", "editor").await;
    let token = world.token("editor").await;
    for (target, files) in [
        ("", vec![("osx-like.conf", OSX_LIKE)]),
        ("prod", vec![("all.conf", CONF)]),
        ("lab", vec![("fleet.yml", FLEETCTL)]),
    ] {
        let (steps, _) = rest_import(&world, &token, target, &files).await;
        assert!(!steps.is_empty(), "{target}");
        let path = format!("/api/v1/config/export?target={target}");
        let exported = world.get_json(&path, &token).await;
        assert_eq!(exported.status, StatusCode::OK);
        let again = rest_import(&world, &token, target, &[("export.conf", &exported.body)]).await;
        assert_eq!(
            again,
            (Vec::new(), Vec::new()),
            "{target}: {}",
            exported.body
        );
        assert_eq!(world.get_json(&path, &token).await.body, exported.body);
    }
    let names = world.test_db.texts("SELECT q.name FROM queries q JOIN packs p ON p.id = q.pack_id WHERE p.name = 'osx-like' ORDER BY 1").await;
    assert_eq!(names.len(), 22);
    for odd in [
        "mithra`s_rootkit 1",
        "sadmind/worm_2",
        "Trailing 3 ",
        "Odd_0.plist",
    ] {
        assert!(names.iter().any(|name| name == odd), "{odd}: {names:?}");
    }
    let id = world
        .test_db
        .texts("SELECT id::text FROM packs WHERE name = 'osx-like'")
        .await
        .remove(0);
    let pack = world
        .get_json(&format!("/api/v1/packs/{id}/export"), &token)
        .await;
    let (steps, notes) = rest_import(&world, &token, "", &[("osx-like.conf", &pack.body)]).await;
    assert_eq!(
        (steps.len(), notes.len()),
        (0, 0),
        "a pack alone: {steps:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn sending_everything_again_names_the_nodes_and_reaches_exactly_them() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let page = browser.get("/resync?ask=1&target=prod").await;
    assert!(
        page.body.contains("<strong>1 node</strong>"),
        "{}",
        page.body
    );
    let wrong = browser
        .post("/resync", &[("target", "prod"), ("confirm", "7")])
        .await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY
            && wrong.body.contains("reaches 1 nodes now"),
        "{}",
        wrong.body
    );
    let options =
        "SELECT target || ' ' || priority FROM options WHERE name = 'schedule_epoch' ORDER BY 1";
    assert_eq!(world.test_db.texts(options).await, [""; 0]);
    let epochs = "SELECT value::text FROM options WHERE name = 'schedule_epoch' ORDER BY value::text::bigint DESC";
    let mut highest = 0_i64;
    for target in ["prod", "", "prod", "prod", "lab"] {
        let nodes = if target == "lab" { "0" } else { "1" };
        let done = browser
            .post("/resync", &[("target", target), ("confirm", nodes)])
            .await;
        assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
        let newest: i64 = world.test_db.texts(epochs).await[0].parse().unwrap();
        assert!(
            newest > highest && newest >= world.app.now().timestamp(),
            "it rises: {newest}"
        );
        highest = newest;
    }
    // A node has one epoch: the newest of its targets.
    assert_eq!(
        world.test_db.texts(options).await,
        [" 1", "lab 3", "prod 2"]
    );
    world.end().await;
}

#[tokio::test]
async fn an_export_says_what_is_in_it_and_holds_what_nodes_read() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let token = world.token("editor").await;
    sample::one_of_everything(&world).await;
    for (target, name) in [
        ("", "for all"),
        ("prod", "for prod"),
        ("prod and platform:linux", "for some"),
        ("lab", "for lab"),
    ] {
        let conf = json!({"schedule": {name: {"query": "SELECT 1 FROM users", "interval": 60}}, "options": {"read_max": target.len()}});
        rest_import(&world, &token, target, &[("x.conf", &conf.to_string())]).await;
    }
    let exported = async |scope: &str, target: &str, node: &str| {
        let path = format!(
            "/api/v1/config/export?scope={scope}&target={}&node={node}",
            target.replace(' ', "%20")
        );
        let answer = world.get_json(&path, &token).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        let document = answer.json();
        let names: Vec<String> = (document["schedule"].as_object().unwrap().keys())
            .filter(|name| name.starts_with("for "))
            .cloned()
            .collect();
        (names, document["options"]["read_max"].clone())
    };
    let all = ["for all", "for prod", "for some"].map(ToOwned::to_owned);
    assert_eq!(
        exported("exact", "prod", "").await,
        (vec!["for prod".to_owned()], json!(4))
    );
    assert_eq!(
        exported("whole", "", "").await,
        (vec!["for all".to_owned()], json!(0))
    );
    assert_eq!(exported("whole", "prod", "").await.0, all[..2]);
    assert_eq!(
        exported("whole", "platform:linux and prod", "").await.0,
        all
    );
    let id = world.test_db.texts("SELECT n.id::text FROM nodes n JOIN node_tags nt ON nt.node_id = n.id JOIN tags t ON t.id = nt.tag_id WHERE t.name = 'prod'").await.remove(0);
    let of_node = exported("node", "", &id).await.0;
    let config = browser.get(&format!("/nodes/{id}/config")).await.body;
    for name in ["for all", "for prod", "for some", "for lab"] {
        let is_read = of_node.iter().any(|own| own == name);
        assert_eq!(
            config.contains(&format!("&quot;{name}&quot;")),
            is_read,
            "{name}: {of_node:?}"
        );
    }
    let page = browser
        .get("/config/export?ask=1&scope=whole&target=prod")
        .await;
    assert!(
        page.body.contains("for prod")
            && page.body.contains("Download prod.conf")
            && !page.body.contains("for lab"),
        "{}",
        page.body
    );
    let file = browser
        .get("/config/export/file?scope=whole&target=prod")
        .await;
    assert!(file.body.contains("for prod"), "{}", file.body);
    for (query, words) in [
        (
            "scope=whole&target=prod+and+not+prod",
            "No node can be imagined",
        ),
        ("scope=node&node=nobody", "There is no node of this name"),
        ("scope=exact&target=a+b", "needs an"),
    ] {
        let page = browser.get(&format!("/config/export?ask=1&{query}")).await;
        assert!(
            page.status == StatusCode::UNPROCESSABLE_ENTITY && page.body.contains(words),
            "{query}: {}",
            page.body
        );
    }
    world.end().await;
}
