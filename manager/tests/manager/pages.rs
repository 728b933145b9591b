//! Every page comes out, whatever there is to show.

use axum::http::StatusCode;

use super::sample::{
    self, CARVE, DESTINATION, FINDING, HOSTILE, LIVE_QUERY, NODE, RULE, UNREADABLE,
};
use super::world::World;

const ALWAYS: &[&str] = &[
    "/",
    "/account",
    "/audit",
    "/users",
    "/users/new",
    "/tokens",
    "/nodes",
    "/nodes?q=web&state=online&platform=unknown&tag=prod",
    "/live-queries",
    "/live-queries/new",
    "/enroll",
    "/enroll/key-header",
    "/enroll/node-keys",
    "/nodes/conflicts",
    "/nodes/approvals",
    "/enroll/new-nodes?since=2020-01-01T00:00:00Z",
    "/carves",
    "/unreadable",
    "/certificates",
    "/packs",
    "/packs/new",
    "/packs/import",
    "/queries",
    "/queries/new",
    "/file-paths",
    "/file-paths/new",
    "/options",
    "/options/new",
    "/resync",
    "/resync?ask=1&target=prod",
    "/decorators",
    "/decorators/new",
    "/table-denials",
    "/table-denials/new",
    "/sections",
    "/sections/new",
    "/tags",
    "/rules",
    "/rules/new",
    "/findings",
    "/findings?state=resolved&severity=high",
    "/findings?state=all&q=port",
    "/silences",
    "/silences/new",
    "/destinations",
    "/destinations/new?kind=email",
    "/destinations/new?kind=webhook",
    "/destinations/new?kind=pagerduty",
    "/destinations/new?kind=slack",
    "/destinations/new?kind=teams",
    "/destinations/new?kind=jira",
    "/destinations/new?kind=syslog",
    "/destinations/new?kind=sentry",
    "/deliveries",
    "/deliveries?state=delivered",
    "/sinks",
    "/sinks/new?kind=file",
    "/sinks/new?kind=syslog",
];

fn of_things() -> Vec<String> {
    let node = [
        "",
        "/present",
        "/present?query=pack/it/ports",
        "/events",
        "/events?action=added&query=pack/it/ports",
        "/findings",
        "/status-logs",
        "/status-logs?severity=2",
        "/live-queries",
        "/carves",
        "/config",
    ];
    let mut paths: Vec<String> = node
        .iter()
        .map(|part| format!("/nodes/{NODE}{part}"))
        .collect();
    paths.extend([
        format!("/findings/{FINDING}"),
        format!("/findings?rule={RULE}&node={NODE}"),
        format!("/silences/new?rule={RULE}&node={NODE}"),
        format!("/rules/{RULE}"),
        format!("/rules/{RULE}/edit"),
        format!("/destinations/{DESTINATION}"),
        "/deliveries/01900000-0000-7000-8000-0000000000a4".into(),
        format!("/live-queries/{LIVE_QUERY}"),
        format!("/live-queries/{LIVE_QUERY}/part"),
        format!("/live-queries/new?node={NODE}&sql=SELECT+1"),
        format!("/carves/{CARVE}"),
        format!("/unreadable?node={NODE}"),
        "/tags/01900000-0000-7000-8000-0000000000a1/edit".into(),
    ]);
    paths
}

#[tokio::test]
async fn every_page_comes_out_empty_with_one_thing_and_with_many() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    let mut paths: Vec<String> = ALWAYS.iter().map(ToString::to_string).collect();
    for stage in ["empty", "one", "many"] {
        if stage == "one" {
            sample::one_of_everything(&world).await;
            paths.extend(of_things());
        } else if stage == "many" {
            sample::many(&world).await;
        }
        for path in &paths {
            let answer = browser.get(path).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{stage} {path}: {}",
                answer.body
            );
            assert!(
                !answer.body.contains(HOSTILE),
                "{stage} {path} lets a node's text through"
            );
            assert!(
                !answer.body.contains("/sign-in?next"),
                "{stage} {path} is no page"
            );
        }
    }
    world.end().await;
}

#[tokio::test]
async fn what_a_page_promises_is_there() {
    let world = World::new().await;
    let mut browser = world.browser_as("admin").await;
    sample::one_of_everything(&world).await;
    let text = browser
        .get(&format!("/nodes/{NODE}/present?query=pack/it/ports"))
        .await
        .body;
    assert!(text.contains("&lt;script&gt;alert(1)") && text.contains("22"));
    let finding = browser.get(&format!("/findings/{FINDING}")).await.body;
    assert!(
        finding.contains("21") && finding.contains("mail"),
        "before and after, and its delivery"
    );
    let overview = browser.get("/").await.body;
    assert!(overview.contains("5.23.1"));
    let data = browser.get(&format!("/unreadable/{UNREADABLE}/data")).await;
    assert_eq!(
        (data.body.as_str(), &data.headers["content-type"]),
        ("<script", &"application/octet-stream".parse().unwrap())
    );
    assert_eq!(
        browser.get("/nodes/nonsense").await.status,
        StatusCode::BAD_REQUEST
    );
    let missing = browser
        .get("/packs/01900000-0000-7000-8000-00000000ffff")
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.body.contains("<html"), "an error is a page, too");
    assert_eq!(
        browser.get("/no/such/page").await.status,
        StatusCode::NOT_FOUND
    );
    world.end().await;
}

#[tokio::test]
async fn a_list_is_walked_to_its_end_without_loss() {
    let world = World::new().await;
    let mut browser = world.browser_as("viewer").await;
    sample::one_of_everything(&world).await;
    sample::many(&world).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut path = "/nodes?platform=darwin".to_owned();
    loop {
        let body = browser.get(&path).await.body;
        for part in body.split("href=\"/nodes/").skip(1) {
            seen.insert(part.split(['"', '/', '?']).next().unwrap().to_owned());
        }
        let next = body
            .split("href=\"")
            .map(|part| part.split('"').next().unwrap_or_default())
            .find(|link| link.contains("after="));
        match next {
            Some(next) => path = next.replace("&amp;", "&").replace("&#x2f;", "/"),
            None => break,
        }
    }
    seen.retain(|id| id.len() == 36);
    assert_eq!(seen.len(), 131);
    world.end().await;
}

#[tokio::test]
async fn a_file_for_spreadsheets_holds_no_formula() {
    let world = World::new().await;
    let mut browser = world.browser_as("viewer").await;
    sample::one_of_everything(&world).await;
    let answer = browser
        .get(&format!("/live-queries/{LIVE_QUERY}/rows.csv"))
        .await;
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines[0], "node_id,node,a,b");
    assert_eq!(lines[1], format!("{NODE},{HOSTILE},'=1+1,{HOSTILE}"));
    assert_eq!(lines.len(), 3);
    assert!(
        answer.headers["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("attachment")
    );
    world.end().await;
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let world = World::new().await;
    let mut browser = world.browser_as("viewer").await;
    for path in [
        "/",
        "/healthz",
        "/api/v1/nodes",
        "/assets/none.css",
        "/nothing",
    ] {
        let headers = browser.get(path).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    }
    assert!(
        !browser.get("/").await.body.contains("<script>"),
        "no inline script"
    );
    assert!(browser.get("/metrics").await.body.contains("ostiary_up 1"));
    assert_eq!(browser.get("/readyz").await.status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn without_the_database_every_answer_says_so() {
    let world = World::new().await;
    let mut browser = world.browser_as("viewer").await;
    let token = world.token("viewer").await;
    world.app.db.close().await;
    let page = browser.get("/nodes").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        page.body.contains("database cannot be reached"),
        "{}",
        page.body
    );
    let rest = world.get_json("/api/v1/nodes", &token).await;
    assert_eq!(rest.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        rest.json()["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("database"))
    );
    assert_eq!(
        browser.get("/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(browser.get("/healthz").await.status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn rows_that_nobody_asks_for_or_confirms_any_more_are_marked() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut browser = world.browser_as("viewer").await;
    let token = world.token("viewer").await;
    let fetch = async |document: &str| {
        let sql = format!(
            "DELETE FROM node_configs; DELETE FROM config_documents;
             INSERT INTO config_documents (hash, document, created_at) VALUES ('x', '{document}', now());
             INSERT INTO node_configs (node_id, document_hash, fetched_at) VALUES ('{NODE}', 'x', now());
             UPDATE present_rows SET changed_at = now() - interval '3 days'"
        );
        world.test_db.execute(&sql).await;
    };
    let page = format!("/nodes/{NODE}/present?query=pack/it/ports");
    fetch("{}").await;
    let said = browser.get(&page).await.body;
    assert!(said.contains("not asked any more"), "{said}");
    let rest = format!("/api/v1/nodes/{NODE}/present-rows?query=pack/it/ports");
    let item = world.get_json(&rest, &token).await.json()["items"][0].clone();
    assert_eq!(item["stale"], "not_asked");
    let asked = r#"{"packs": {"it": {"queries": {"ports": {"query": "q", "interval": 60}}}}}"#;
    fetch(asked).await;
    let quiet = "UPDATE node_checkins SET results_at = now() - interval '1 day'";
    world.test_db.execute(quiet).await;
    let said = browser.get(&page).await.body;
    assert!(said.contains("more than twice the interval"), "{said}");
    // Its schedule runs, so that no change came says that nothing changed.
    world
        .test_db
        .execute("UPDATE node_checkins SET results_at = now()")
        .await;
    let said = browser.get(&page).await.body;
    assert!(!said.contains("id=\"stale\""), "{said}");
    world.end().await;
}
