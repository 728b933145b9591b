//! Denials hold for all SQL that there is, also for what nobody ever looked at, and tables that cannot be made spoil nothing.

use axum::http::StatusCode;
use ostiary_manager::actions::look_at_all;
use ostiary_store::Db;

use super::sample::{self, NODE};
use super::world::World;

const DENIAL: [(&str, &str); 3] = [
    ("target", "prod"),
    ("tables", "shadow"),
    ("reason", "passwords are nobody's business."),
];

async fn look(world: &World) {
    let mut tx = world.app.db.begin().await.unwrap();
    look_at_all(&world.app.sql_checkers, &mut tx, world.app.now())
        .await
        .unwrap();
    Db::commit(tx).await.unwrap();
}

#[tokio::test]
async fn sql_that_nobody_looked_at_or_can_read_is_kept_back_until_it_is_known() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    world
        .test_db
        .execute(
            "DELETE FROM checked_sql;
             INSERT INTO queries (id, name, sql, interval_seconds, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000098', 'fine', 'SELECT pid FROM processes', 60, now(), now()),
                ('01900000-0000-7000-8000-000000000099', 'odd', 'SELECT * FROM nowhere', 60, now(), now());
             INSERT INTO packs (id, name, extra, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000097', 'brings', '{\"decorators\":{\"load\":[\"SELECT * FROM shadow\"]}}', now(), now());",
        )
        .await;
    let mut admin = world.browser_as("admin").await;
    let config_page = format!("/nodes/{NODE}/config");
    world
        .test_db
        .execute(
            "INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at)
             VALUES ('01900000-0000-7000-8000-000000000094', 'prod', '{shadow}', 'private.', now(), now())",
        )
        .await;
    let page = admin.get(&config_page).await.body;
    assert!(!page.contains("FROM nowhere") && !page.contains("FROM processes"));
    assert!(page.contains("it was not looked at yet"), "{page}");
    let mut asked = DENIAL.to_vec();
    asked.push(("preview", "on"));
    let answer = admin.post("/table-denials", &asked).await;
    assert!(
        answer
            .body
            .contains("1 node would be denied these tables; from 1 node would be kept: ")
            && answer
                .body
                .contains("odd, the decorator load of the pack brings"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("Nothing was saved yet: please"));
    let denials = "SELECT target FROM table_denials WHERE target <> 'laptop'";
    assert_eq!(
        world.test_db.texts(denials).await,
        ["prod"],
        "nothing is saved"
    );
    look(&world).await;
    let page = admin.get(&config_page).await.body;
    assert!(page.contains("SELECT pid FROM processes"), "{page}");
    assert!(!page.contains("FROM nowhere") && !page.contains("FROM shadow"));
    assert!(
        page.contains("Nobody can say what it reads: There is no table nowhere."),
        "{page}"
    );
    assert!(
        page.contains("the decorator load of the pack brings"),
        "{page}"
    );
    let built_in = world
        .test_db
        .texts("SELECT 1::text FROM checked_sql WHERE tables @> '{osquery_info}'")
        .await;
    assert!(!built_in.is_empty(), "SQL of migrations is looked at, too");
    world.end().await;
}

#[tokio::test]
async fn sql_that_a_return_brings_back_is_looked_at_though_it_was_forgotten() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut admin = world.browser_as("admin").await;
    let denied = admin.post("/table-denials", &DENIAL).await;
    assert_eq!(denied.status, StatusCode::SEE_OTHER, "{}", denied.body);
    let query = [
        ("name", "fine"),
        ("sql", "SELECT pid FROM processes"),
        ("interval_seconds", "60"),
        ("kind", "snapshot"),
        ("target", ""),
        ("enabled", "on"),
    ];
    let saved = admin.post("/queries", &query).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let newest = "SELECT max(number)::text FROM config_revisions";
    let revision = world.test_db.texts(newest).await.concat();
    let made = "SELECT id::text FROM queries WHERE name = 'fine'";
    let id = world.test_db.texts(made).await.concat();
    admin
        .post(&format!("/queries/{id}/delete"), &[("confirm", "fine")])
        .await;
    assert!(world.test_db.texts(made).await.is_empty());
    let forget = "DELETE FROM checked_sql WHERE tables = '{processes}'";
    world.test_db.execute(forget).await;
    let back = admin
        .post(&format!("/revisions/{revision}/return"), &[])
        .await;
    assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.body);
    let page = admin.get(&format!("/nodes/{NODE}/config")).await.body;
    assert!(page.contains("SELECT pid FROM processes"), "{page}");
    assert!(!page.contains("it was not looked at yet"), "{page}");
    world.end().await;
}

#[tokio::test]
async fn a_view_that_is_redefined_over_a_denied_table_takes_its_readers_along() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut admin = world.browser_as("admin").await;
    assert_eq!(
        admin.post("/table-denials", &DENIAL).await.status,
        StatusCode::SEE_OTHER
    );
    let view = |sql: &str| {
        [
            ("key", "views".to_owned()),
            ("name", "v".to_owned()),
            ("value", format!("{{\"seen\": \"{sql}\"}}")),
            ("target", "not prod".to_owned()),
            ("priority", "0".to_owned()),
            ("enabled", "on".to_owned()),
        ]
    };
    let post = async |admin: &mut super::world::Browser<'_>, path: &str, sql: &str| {
        let fields = view(sql);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
        admin.post(path, &fields).await
    };
    let made = post(&mut admin, "/sections", "SELECT pid FROM processes").await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    let query = [
        ("name", "reader"),
        ("sql", "SELECT * FROM seen"),
        ("interval_seconds", "60"),
        ("kind", "snapshot"),
        ("target", ""),
        ("enabled", "on"),
    ];
    let saved = admin.post("/queries", &query).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let config_page = format!("/nodes/{NODE}/config");
    let page = admin.get(&config_page).await.body;
    assert!(page.contains("SELECT * FROM seen"), "{page}");
    let section = world
        .test_db
        .texts("SELECT id::text FROM config_sections WHERE name = 'v'")
        .await
        .concat();
    let path = format!("/sections/{section}");
    let changed = post(&mut admin, &path, "SELECT username AS pid FROM shadow").await;
    assert_eq!(changed.status, StatusCode::SEE_OTHER, "{}", changed.body);
    let page = admin.get(&config_page).await.body;
    assert!(!page.contains("SELECT * FROM seen"), "{page}");
    assert!(page.contains("Kept from this node") && page.contains("reader"));
    world.end().await;
}

#[tokio::test]
async fn tables_that_cannot_be_made_spoil_no_check_and_are_shown() {
    let world = World::new().await;
    world
        .test_db
        .execute(
            "INSERT INTO known_tables (platform, name, columns, first_reported_at, last_reported_at) VALUES
                ('linux', 'sqlite_odd', '[{\"name\":\"a\",\"hidden\":false}]', now(), now()),
                ('linux', 'twice', '[{\"name\":\"a\",\"hidden\":false}]', now(), now()),
                ('darwin', 'twice', '[{\"name\":\"A\",\"hidden\":false}]', now(), now());
             INSERT INTO config_sections (id, key, name, description, value, target, priority, enabled, created_at, updated_at) VALUES
                ('01900000-0000-7000-8000-000000000096', 'auto_table_construction', 'x', '',
                 '{\"off\":{\"query\":\"q\",\"path\":\"/x\",\"columns\":[\"a\",\"A\"]}}', '', 0, false, now(), now()),
                ('01900000-0000-7000-8000-000000000095', 'auto_table_construction', 'y', '',
                 '{\"odd\":{\"query\":\"q\",\"path\":\"/x\",\"columns\":[\"a\",\"A\",\"Path\"]}}', '', 0, true, now(), now());",
        )
        .await;
    let mut browser = world.browser_as("editor").await;
    let ask = [("sql", "SELECT pid FROM processes"), ("what", "")];
    assert_eq!(browser.post("/sql-check", &ask).await.json()["ok"], true);
    let twice = [("sql", "SELECT a FROM twice"), ("what", "")];
    assert_eq!(browser.post("/sql-check", &twice).await.json()["ok"], true);
    let page = browser.get("/table-denials").await.body;
    assert!(
        page.contains("Tables and views that cannot be made"),
        "{page}"
    );
    let list = page.split("cannot be made").last().unwrap();
    assert!(list.contains("sqlite_odd") && list.contains("duplicate column name"));
    assert!(
        !list.contains(">off<") && !list.contains(">twice<"),
        "{list}"
    );
    world.end().await;
}
