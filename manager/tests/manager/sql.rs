//! SQL is looked at before anybody gets it, and tables can be denied.

use axum::http::StatusCode;

use super::sample::{self, NODE};
use super::world::World;

const LAPTOP: &str = "laptops are personal";

#[tokio::test]
async fn sql_that_nodes_could_not_run_is_refused_where_it_is_typed() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let fields = |sql: &'static str, target: &'static str| {
        [
            ("name", "q"),
            ("sql", sql),
            ("interval_seconds", "60"),
            ("kind", "snapshot"),
            ("platform", "linux"),
            ("target", target),
            ("enabled", "on"),
        ]
    };
    for (sql, said) in [
        (
            "SELECT *\nFROM proceses",
            "Line 2, column 6: There is no table proceses. Did you mean processes?",
        ),
        (
            "SELECT * FROM alf",
            "osquery has the table alf on macOS only, and this is for Linux.",
        ),
        (
            "DELETE FROM users",
            "Only a SELECT may stand here, not DELETE.",
        ),
        ("SELECT 1; SELECT 2", "There are several statements"),
        ("SELECT * FROM file", LAPTOP),
    ] {
        let answer = browser.post("/queries", &fields(sql, "")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{sql}");
        assert!(answer.body.contains(said), "{sql}: {}", answer.body);
    }
    let kept = browser
        .post(
            "/queries",
            &fields("SELECT path FROM file WHERE path = '/etc/hosts'", "server"),
        )
        .await;
    assert_eq!(kept.status, StatusCode::SEE_OTHER, "{}", kept.body);
    assert_eq!(
        world
            .test_db
            .texts(
                "SELECT array_to_string(tables, ',') FROM checked_sql WHERE 'file' = ANY (tables)"
            )
            .await,
        ["file"]
    );
    let decorator = [
        ("name", "d"),
        ("moment", "load"),
        ("sql", "SELECT nme FROM os_version"),
        ("target", ""),
    ];
    let answer = browser.post("/decorators", &decorator).await;
    assert!(
        answer.body.contains("Did you mean name?"),
        "{}",
        answer.body
    );
    let pack = [
        ("name", "p"),
        ("discovery", "SELECT 1 FROM nowhere"),
        ("target", ""),
    ];
    let answer = browser.post("/packs", &pack).await;
    assert!(
        answer.body.contains("There is no table nowhere."),
        "{}",
        answer.body
    );
    world.end().await;
}

#[tokio::test]
async fn sql_is_looked_at_while_it_is_typed() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let mut ask = async |sql: &str, what: &str, target: &str| {
        let fields = [
            ("sql", sql),
            ("what", what),
            ("target", target),
            ("platform", ""),
        ];
        browser.post("/sql-check", &fields).await.json()
    };
    let wrong = ask("SELECT pidd FROM processes", "", "").await;
    assert_eq!(wrong["ok"], false);
    assert_eq!(
        wrong["position"],
        serde_json::json!({"line": 1, "column": 8})
    );
    let right = ask("SELECT pid, name FROM processes", "", "").await;
    assert_eq!(right["columns"], serde_json::json!(["pid", "name"]));
    let some = ask("SELECT 1 AS a FROM alf", "", "").await;
    assert!(
        some["warnings"][0]
            .as_str()
            .unwrap()
            .contains("missing on Linux and Windows")
    );
    let mac = ask("SELECT 1 AS a FROM alf", "", "platform:darwin").await;
    assert_eq!(mac["warnings"], serde_json::json!([]));
    assert_eq!(ask("PRAGMA table_info(users)", "", "").await["ok"], false);
    assert_eq!(
        ask("PRAGMA table_info(users)", "live", "*").await["ok"],
        true
    );
    let mut viewer = world.browser_as("viewer").await;
    assert_eq!(
        viewer
            .post("/sql-check", &[("sql", "SELECT 1")])
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    assert!(
        world
            .test_db
            .texts("SELECT 1 FROM checked_sql")
            .await
            .is_empty(),
        "nothing is stored"
    );
    world.end().await;
}

#[tokio::test]
async fn tables_are_denied_by_target_and_what_reads_them_is_left_out() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    // Saved before there was a check: nothing is known of its tables.
    world
        .test_db
        .execute(
            "INSERT INTO queries (id, name, sql, interval_seconds, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000099', 'old', 'SELECT * FROM shadow', 60, now(), now());",
        )
        .await;
    let mut editor = world.browser_as("editor").await;
    assert_eq!(
        editor.get("/table-denials/new").await.status,
        StatusCode::FORBIDDEN
    );
    let mut admin = world.browser_as("admin").await;
    let denial = [
        ("target", "prod"),
        ("tables", "shadow, Users"),
        ("reason", "passwords are nobody's business."),
    ];
    let unknown = [("target", "prod"), ("tables", "shadows"), ("reason", "x")];
    let answer = admin.post("/table-denials", &unknown).await;
    assert!(
        answer.body.contains("There are no such tables: shadows."),
        "{}",
        answer.body
    );
    let made = admin.post("/table-denials", &denial).await;
    assert_eq!(made.location, "/table-denials", "{}", made.body);
    let again = admin.post("/table-denials", &denial).await;
    assert!(
        again
            .body
            .contains("There is already a denial for this target"),
        "{}",
        again.body
    );
    let id = world
        .test_db
        .texts("SELECT id::text FROM table_denials WHERE target = 'prod'")
        .await
        .concat();
    let page = admin.get(&format!("/table-denials/{id}/edit")).await.body;
    assert!(
        page.contains("Left out of their configs") && page.contains("old"),
        "{page}"
    );
    // The node of the sample carries the tag prod.
    let config = admin.get(&format!("/nodes/{NODE}/config")).await.body;
    assert!(!config.contains("SELECT * FROM shadow"), "{config}");
    assert!(
        config.contains("Kept from this node") && config.contains("nobody"),
        "{config}"
    );
    let live = [
        ("sql", "SELECT * FROM users"),
        ("node_ids", NODE),
        ("expires_minutes", "10"),
    ];
    let refused = admin.post("/live-queries", &live).await;
    assert!(
        refused.body.contains("passwords are nobody"),
        "{}",
        refused.body
    );
    let actions = world
        .test_db
        .texts("SELECT action FROM audit_entries WHERE action LIKE 'table_denials.%'")
        .await;
    assert_eq!(actions, ["table_denials.create"]);
    admin
        .post(
            &format!("/table-denials/{id}/delete"),
            &[("confirm", "prod")],
        )
        .await;
    let config = admin.get(&format!("/nodes/{NODE}/config")).await.body;
    assert!(config.contains("SELECT * FROM shadow"), "{config}");
    assert_eq!(
        admin.post("/live-queries", &live).await.status,
        StatusCode::SEE_OTHER
    );
    world.end().await;
}

#[tokio::test]
async fn a_live_query_with_a_discovery_says_who_is_not_asked_and_a_killed_one_how_to_ask_again() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut browser = world.browser_as("editor").await;
    let mut fields = vec![
        ("sql", "SELECT 1 AS z, 2 AS a"),
        ("discovery", "SELECT 1 FROM carbonblack"),
        ("node_ids", NODE),
        ("expires_minutes", "10"),
    ];
    let refused = browser.post("/live-queries", &fields).await;
    assert!(
        refused.body.contains("There is no table carbonblack."),
        "{}",
        refused.body
    );
    fields[1].1 = "SELECT 1 FROM os_version";
    let made = browser.post("/live-queries", &fields).await.location;
    let page = browser.get(&made).await.body;
    assert!(
        page.contains("waiting") && page.contains("Only where this returns a row"),
        "{page}"
    );
    world
        .test_db
        .execute("UPDATE nodes SET osquery_version = '5.7.0'")
        .await;
    let page = browser.get(&made).await.body;
    assert!(page.contains("not asked") && page.contains("5.8"), "{page}");
    let id = made.rsplit('/').next().unwrap();
    for (state, message, said) in [
        (
            "failed",
            "distributed query is denylisted",
            "Ask again as another text",
        ),
        ("stuck", "", "never answers"),
        ("skipped", "", "not concerned"),
        ("failed", "no such table: foo", "no such table: foo"),
    ] {
        world
            .test_db
            .execute(&format!(
                "INSERT INTO live_query_tasks (live_query_id, node_id, state, message) VALUES ('{id}', '{NODE}', '{state}', '{message}')
                 ON CONFLICT ON CONSTRAINT live_query_tasks_pkey DO UPDATE SET state = excluded.state, message = excluded.message"
            ))
            .await;
        let page = browser.get(&made).await.body;
        assert!(page.contains(said), "{state}: {page}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_tables_of_a_node_are_learned_from_its_answer() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut browser = world.browser_as("editor").await;
    let made = browser
        .post(&format!("/nodes/{NODE}/learn-tables"), &[])
        .await
        .location;
    let id = made.rsplit('/').next().unwrap().to_owned();
    let query = [
        ("sql", "SELECT verdict FROM kolide_thing"),
        ("target", "*"),
        ("expires_minutes", "10"),
    ];
    let unknown = browser.post("/live-queries", &query).await;
    assert!(
        unknown.body.contains("There is no table kolide_thing."),
        "{}",
        unknown.body
    );
    let rows = r#"[{"table_name":"kolide_thing","column_name":"verdict","hidden":"0"},{"table_name":"users","column_name":"uid","hidden":"0"}]"#;
    world
        .test_db
        .execute(&format!(
            "INSERT INTO live_query_tasks (live_query_id, node_id, state, finished_at, row_count, rows)
             VALUES ('{id}', '{NODE}', 'done', now(), 2, '{rows}')"
        ))
        .await;
    browser
        .post(&format!("/live-queries/{id}/learn"), &[])
        .await;
    assert_eq!(
        world
            .test_db
            .texts("SELECT platform || ' ' || name FROM known_tables")
            .await,
        ["linux kolide_thing"]
    );
    assert_eq!(
        browser.post("/live-queries", &query).await.status,
        StatusCode::SEE_OTHER
    );
    assert!(
        browser
            .get("/table-denials")
            .await
            .body
            .contains("kolide_thing")
    );
    world.end().await;
}
