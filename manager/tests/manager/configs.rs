//! Configs: what a node gets, and what none may get.

use axum::http::StatusCode;

use super::sample::{self, NODE};
use super::world::World;

#[tokio::test]
async fn a_change_that_makes_a_config_too_large_is_refused_with_its_size() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    let long = "x".repeat(90_000);
    let query = |name: String, target: &'static str| {
        let sql = format!("SELECT '{long}'");
        [
            ("name", name),
            ("sql", sql),
            ("interval_seconds", "60".into()),
            ("kind", "snapshot".into()),
            ("target", target.into()),
            ("enabled", "on".into()),
        ]
    };
    for index in 0..11 {
        let fields = query(format!("q{index}"), "prod");
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        assert_eq!(
            browser.post("/queries", &fields).await.status,
            StatusCode::SEE_OTHER,
            "q{index}"
        );
    }
    let fields = query("q11".into(), "prod");
    let answer = browser
        .post(
            "/queries",
            &fields
                .each_ref()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.body.contains("1048576") && answer.body.contains("not saved"),
        "it names the limit"
    );
    assert!(
        world
            .test_db
            .texts("SELECT name FROM queries WHERE name = 'q11'")
            .await
            .is_empty()
    );
    let fields = query("q11".into(), "lab");
    let answer = browser
        .post(
            "/queries",
            &fields
                .each_ref()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "nobody gets both");
    browser
        .post(&format!("/nodes/{NODE}/tags"), &[("add", "lab")])
        .await;
    assert!(
        browser
            .get(&format!("/nodes/{NODE}"))
            .await
            .body
            .contains("not saved"),
        "a tag may make a config too large, too"
    );
    assert_eq!(world.test_db.texts("SELECT name FROM tags").await, ["prod"]);
    world.end().await;
}

#[tokio::test]
async fn the_config_page_tells_what_was_fetched_and_what_is_due() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    sample::one_of_everything(&world).await;
    browser
        .post(
            "/queries",
            &[
                ("name", "due"),
                ("sql", "SELECT 7"),
                ("interval_seconds", "60"),
                ("kind", "snapshot"),
                ("enabled", "on"),
            ],
        )
        .await;
    let page = browser.get(&format!("/nodes/{NODE}/config")).await.body;
    assert!(
        page.contains("SELECT 7") && page.contains("schedule"),
        "{page}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_built_in_pack_is_not_changed() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let id = world
        .test_db
        .texts("SELECT id::text FROM packs WHERE built_in")
        .await
        .pop()
        .expect("the migrations bring it");
    let answer = browser
        .post(&format!("/packs/{id}"), &[("name", "mine")])
        .await;
    assert!(answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.body.contains("built in"));
    browser
        .post(&format!("/packs/{id}/delete"), &[("confirm", "ostiary")])
        .await;
    assert_eq!(
        world.test_db.texts("SELECT name FROM packs").await,
        ["ostiary"]
    );
    world.end().await;
}

const CONF: &str = r#"{
  // drift of a laptop
  "options": {"logger_tls_period": 10, "pack_delimiter": "_", "read_max": 1.5},
  "schedule": {"users": {"query": "SELECT * \
FROM users", "interval": 600}},
  # a pack within
  "packs": {
    "it/laptops": {"platform": "darwin", "shard": 50, "queries": {
      "usb": {"query": "SELECT * FROM usb_devices;", "interval": 60, "removed": false},
      "apps": {"query": "SELECT * FROM apps", "interval": "300", "snapshot": true}
    }}
  },
  "decorators": {"load": ["SELECT 1 AS a"], "interval": {"120": ["SELECT 2 AS b"]}},
  "file_paths": {"etc": ["/etc/%%"]},
  "exclude_paths": {"etc": ["/etc/mtab"]},
  "views": {"v": "SELECT 1"}
}"#;

#[tokio::test]
async fn an_osquery_file_is_imported_whole_and_again_without_doubling() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let summary = async || {
        let sql = "SELECT concat_ws(' ', coalesce(p.name, '-'), q.name, q.sql, q.interval_seconds, q.snapshot, q.removed, q.target) \
            FROM queries q LEFT JOIN packs p ON p.id = q.pack_id WHERE NOT coalesce(p.built_in, false) ORDER BY 1";
        world.test_db.texts(sql).await
    };
    for round in 0..2 {
        let answer = browser
            .upload(
                "/packs/import",
                &[("name", ""), ("target", "prod")],
                ("all.conf", CONF),
            )
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        for note in ["it-laptops", "read_max", "views", "pack_delimiter"] {
            assert!(
                answer.body.contains(note),
                "round {round}: nothing is said of {note}"
            );
        }
        let expected = [
            "- users SELECT * FROM users 600 f t prod",
            "it-laptops apps SELECT * FROM apps 300 t t ",
            "it-laptops usb SELECT * FROM usb_devices; 60 f f ",
        ];
        assert_eq!(summary().await, expected, "round {round}");
        assert_eq!(
            world
                .test_db
                .texts("SELECT name || value::text FROM options")
                .await,
            ["logger_tls_period10"]
        );
        assert_eq!(
            world
                .test_db
                .texts("SELECT name FROM decorators ORDER BY 1")
                .await,
            ["interval 1", "load 1"]
        );
        assert_eq!(
            world
                .test_db
                .texts("SELECT globs::text || exclude_globs::text FROM file_paths")
                .await,
            ["{/etc/%%}{/etc/mtab}"]
        );
    }
    let smaller = CONF
        .replace("\"apps\":", "\"software\":")
        .replace("600", "900");
    let answer = browser
        .upload("/packs/import", &[("target", "")], ("all.conf", &smaller))
        .await;
    assert!(answer.body.contains("removed") && answer.body.contains("apps"));
    assert!(
        summary().await.iter().any(|line| line.contains("software")),
        "a pack becomes what the file says"
    );
    assert_eq!(
        world
            .test_db
            .texts("SELECT target FROM packs WHERE NOT built_in")
            .await,
        ["prod"],
        "its target stays"
    );
    world.end().await;
}

#[tokio::test]
async fn an_import_is_all_or_nothing() {
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
    assert!(
        broken.body.contains("line 3") || broken.body.contains("Line 3"),
        "{}",
        broken.body
    );
    let huge: String = (0..12)
        .map(|n| {
            format!(
                "\"q{n}\": {{\"query\": \"SELECT '{}'\", \"interval\": 60}},",
                "x".repeat(90_000)
            )
        })
        .collect();
    let huge = format!("{{\"queries\": {{{}}}}}", huge.trim_end_matches(','));
    let refused = browser
        .upload("/packs/import", &[("target", "")], ("huge.conf", &huge))
        .await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("1048576"));
    assert!(
        world
            .test_db
            .texts("SELECT name FROM packs WHERE NOT built_in")
            .await
            .is_empty()
    );
    world.end().await;
}
