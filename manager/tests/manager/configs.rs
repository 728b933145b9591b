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
