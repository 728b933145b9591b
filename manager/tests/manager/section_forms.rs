//! Views and automatic tables field by field, and what the check of SQL says of what is stored.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::sample::{self, NODE};
use super::world::{Browser, World};

/// The fields of the form on a page, as a browser would send them untouched.
fn fields_of(page: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        [
            ("&quot;", "\""),
            ("&#x2f;", "/"),
            ("&#x27;", "'"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&amp;", "&"),
        ]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| {
            text.replace(escaped, plain)
        })
    };
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        Some(plain(rest.split('"').next()?))
    };
    let form = page.split("data-entries>").nth(1).expect("it has fields");
    let form = form.split("</form>").next().unwrap();
    let mut fields = Vec::new();
    for tag in form.split('<').skip(1) {
        let (head, text) = tag.split_once('>').unwrap_or((tag, ""));
        let Some(name) = attribute(head, "name") else {
            continue;
        };
        if head.starts_with("input") {
            let is_box = head.contains("type=\"checkbox\"") || head.contains("type=\"radio\"");
            if !is_box || head.contains(" checked") {
                fields.push((name, attribute(head, "value").unwrap_or_default()));
            }
        } else if head.starts_with("textarea") {
            let text = plain(text.strip_prefix('\n').unwrap_or(text));
            fields.push((name, text.replace('\n', "\r\n")));
        }
    }
    fields
}

async fn post(
    browser: &mut Browser<'_>,
    path: &str,
    fields: &[(String, String)],
    changed: &[(&str, &str)],
) -> super::world::Answer {
    let kept = (fields.iter())
        .filter(|(name, _)| name != "csrf" && !changed.iter().any(|(own, _)| own == name))
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<(&str, &str)> = kept.chain(changed.iter().copied()).collect();
    browser.post(path, &all).await
}

#[tokio::test]
async fn a_view_and_an_automatic_table_are_made_field_by_field() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let page = browser.get("/sections/new?key=views").await.body;
    let fields = fields_of(&page);
    let wrong = [
        ("name", "mine"),
        ("e0_name", "two words"),
        ("e0_sql", "SELECT pid FROM processes"),
        ("e1_name", "fine"),
        ("e1_sql", "SELECT pid FROM nowhere"),
        ("e2_name", ""),
    ];
    let answer = post(&mut browser, "/sections", &fields, &wrong).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    for said in [
        "id=\"e0_name-error\"",
        "cannot be the name of a view",
        "id=\"e1_sql-error\"",
        "There is no table nowhere.",
        "value=\"two words\"",
    ] {
        assert!(answer.body.contains(said), "{said}: {}", answer.body);
    }
    let right = [
        ("name", "mine"),
        ("e0_name", "running"),
        ("e0_sql", "SELECT pid FROM processes;"),
        ("e1_name", "first"),
        // A view may read the others of its form.
        ("e1_sql", "SELECT pid FROM running LIMIT 1"),
    ];
    let typed = [
        ("key", "views"),
        ("entries", "2"),
        ("what", "views"),
        ("sql", right[4].1),
        right[1],
        right[2],
        right[3],
        right[4],
    ];
    let looked = browser.post("/sql-check", &typed).await.json();
    assert_eq!(looked["ok"], true, "{looked}");
    let made = post(&mut browser, "/sections", &fields, &right).await;
    assert_eq!(made.location, "/sections", "{}", made.body);

    let page = browser
        .get("/sections/new?key=auto_table_construction")
        .await;
    let fields = fields_of(&page.body);
    let table = [
        ("name", "quarantine"),
        ("e0_name", "quarantine"),
        ("e0_path", "/Users/%/q.db"),
        ("e0_query", "SELECT agent FROM events"),
        ("e0_columns", "agent\r\npath"),
        ("e0_platform", "darwin"),
        // Laptops are denied automatic tables from the beginning.
        ("target", "not laptop"),
    ];
    let answer = post(&mut browser, "/sections", &fields, &table).await;
    assert!(
        answer.body.contains("id=\"e0_columns-error\"")
            && answer.body.contains("adds it by itself"),
        "{}",
        answer.body
    );
    let mut table = table;
    table[4].1 = "agent\r\n";
    let made = post(&mut browser, "/sections", &fields, &table).await;
    assert_eq!(made.location, "/sections", "{}", made.body);
    let stored = world
        .test_db
        .texts("SELECT value::text FROM config_sections ORDER BY key")
        .await;
    let stored: Vec<Value> = stored
        .iter()
        .map(|value| serde_json::from_str(value).unwrap())
        .collect();
    assert_eq!(
        stored,
        [
            json!({"quarantine": {"path": "/Users/%/q.db", "query": "SELECT agent FROM events", "columns": ["agent"], "platform": "darwin"}}),
            json!({"running": "SELECT pid FROM processes", "first": "SELECT pid FROM running LIMIT 1"}),
        ]
    );
    world.end().await;
}

#[tokio::test]
async fn a_form_that_is_saved_untouched_changes_no_byte_and_keeps_what_it_does_not_know() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let stored = json!({
        "z": {"platform": "darwin", "odd": [1, null], "columns": ["a"], "query": "SELECT a,\n  \"b\" FROM c", "path": "/x"},
        "a": {"query": "SELECT 1 AS one", "columns": ["one"], "path": "/y"}
    })
    .to_string();
    let fields = [
        ("key", "auto_table_construction"),
        ("name", "both"),
        ("value", stored.as_str()),
        ("target", "not laptop"),
        ("enabled", "on"),
    ];
    let made = browser.post("/sections", &fields).await;
    assert_eq!(made.location, "/sections", "{}", made.body);
    let id = world
        .test_db
        .texts("SELECT id::text FROM config_sections")
        .await
        .concat();
    let (path, edit) = (format!("/sections/{id}"), format!("/sections/{id}/edit"));
    let page = browser.get(&edit).await.body;
    assert!(page.contains("id=\"e1_other\"") && !page.contains("id=\"e0_other\""));
    let fields = fields_of(&page);
    let value = "SELECT value::text FROM config_sections";
    let before = world.test_db.texts(value).await;
    let saved = post(&mut browser, &path, &fields, &[]).await;
    assert_eq!(saved.location, "/sections", "{}", saved.body);
    assert_eq!(world.test_db.texts(value).await, before);
    let changes = [("e1_path", "/new"), ("e0_gone", "on")];
    let saved = post(&mut browser, &path, &fields, &changes).await;
    assert_eq!(saved.location, "/sections", "{}", saved.body);
    let expected = json!({
        "z": {"platform": "darwin", "odd": [1, null], "columns": ["a"], "query": "SELECT a,\n  \"b\" FROM c", "path": "/new"}
    });
    let after = world.test_db.texts(value).await.concat();
    assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), expected);
    let page = browser.get(&format!("{edit}?as=json")).await.body;
    assert!(page.contains("id=\"value\"") && page.contains("Edit it field by field"));
    world.end().await;
}

#[tokio::test]
async fn what_the_check_says_stands_on_the_pages_of_what_is_stored() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    world
        .test_db
        .execute(
            "INSERT INTO queries (id, name, sql, interval_seconds, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000099', 'odd', 'SELECT * FROM nowhere', 60, now(), now());
             INSERT INTO decorators (id, name, moment, sql, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000098', 'odd', 'load', 'SELECT * FROM nobody', now(), now());
             INSERT INTO config_sections (id, key, name, value, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000097', 'views', 'odd', '{\"v\":\"SELECT * FROM nullity\"}', now(), now());
             INSERT INTO packs (id, name, created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000096', 'odd', now(), now());
             INSERT INTO queries (id, pack_id, name, sql, interval_seconds, platform, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000095', '01900000-0000-7000-8000-000000000096', 'odd', 'SELECT * FROM apps', 60, 'linux',
                 now(), now());
             INSERT INTO checked_sql (sql_sha256, tables, problem, checked_at)
                SELECT sha256(convert_to(sql, 'UTF8')), '{}', 'nobody knows', now()
                FROM unnest(ARRAY['SELECT * FROM nowhere', 'SELECT * FROM nobody', 'SELECT * FROM nullity', 'SELECT * FROM apps']) AS sql;",
        )
        .await;
    let mut browser = world.browser_as("editor").await;
    let pack = "/packs/01900000-0000-7000-8000-000000000096";
    for list in ["/queries", "/decorators", "/sections", pack] {
        let page = browser.get(list).await.body;
        assert!(page.contains("nobody knows"), "{list}: {page}");
    }
    for (page, said) in [
        (
            "/queries/01900000-0000-7000-8000-000000000099",
            "There is no table nowhere.",
        ),
        (
            "/decorators/01900000-0000-7000-8000-000000000098",
            "There is no table nobody.",
        ),
        (
            "/sections/01900000-0000-7000-8000-000000000097",
            "There is no table nullity.",
        ),
        (
            &*format!("{pack}/queries/01900000-0000-7000-8000-000000000095"),
            "apps",
        ),
    ] {
        let body = browser.get(&format!("{page}/edit")).await.body;
        let (_, alert) = body
            .split_once("could not be saved today")
            .unwrap_or_else(|| panic!("{page}: {body}"));
        let alert = alert.split("</div></div>").next().unwrap();
        assert!(alert.contains(said), "{page}: {alert}");
    }
    world.end().await;
}

#[tokio::test]
async fn one_click_learns_the_tables_of_a_node() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut browser = world.browser_as("editor").await;
    let path = browser
        .post(&format!("/nodes/{NODE}/learn-tables"), &[])
        .await
        .location;
    let page = browser.get(&path).await.body;
    assert!(page.contains("As soon as the node answers"), "{page}");
    let id = path.rsplit('/').next().unwrap();
    let rows = r#"[{"table_name":"kolide_thing","column_name":"verdict","hidden":"0"},{"table_name":"users","column_name":"uid","hidden":"0"}]"#;
    world
        .test_db
        .execute(&format!(
            "INSERT INTO live_query_tasks (live_query_id, node_id, state, finished_at, row_count, rows)
             VALUES ('{id}', '{NODE}', 'done', now(), 2, '{rows}')"
        ))
        .await;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let page = browser.get(&path).await.body;
        if page.contains("Learned: SQL may use 1. <code>kolide_thing</code>") {
            break;
        }
        assert!(std::time::Instant::now() < until, "{page}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let query = [
        ("sql", "SELECT verdict FROM kolide_thing"),
        ("target", "*"),
        ("expires_minutes", "10"),
    ];
    let asked = browser.post("/live-queries", &query).await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER, "{}", asked.body);
    world.end().await;
}
