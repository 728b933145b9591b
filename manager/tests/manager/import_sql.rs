//! SQL of an import is checked with what the same import brings, and for the nodes that will get it.

use axum::http::StatusCode;

use super::moving::{import, rest_import, shown};
use super::world::World;

/// Laptops may have no automatic tables, by a denial that every Ostiary begins with.
const TARGET: (&str, &str) = ("target", "not laptop");

/// Views that read each other in the wrong order, an automatic table, and SQL that reads them all.
const CONF: &str = r#"{
  "schedule": {"quarantined": {"query": "SELECT agent, path FROM recent", "interval": 60}},
  "packs": {
    "own": {"queries": {"q": {"query": "SELECT * FROM of_pack", "interval": 60}},
      "views": {"of_pack": "SELECT pid FROM processes"}},
    "all": {"discovery": ["SELECT 1 FROM recent"], "queries": {"q": {"query": "SELECT agent FROM agents", "interval": 60}}}
  },
  "decorators": {"load": ["SELECT count(*) AS n FROM agents"]},
  "file_paths_query": {"found": ["SELECT path FROM recent"]},
  "views": {"agents": "SELECT agent FROM recent", "recent": "SELECT agent, path FROM quarantine"},
  "auto_table_construction": {"quarantine": {"query": "SELECT agent FROM LSQuarantineEvent",
    "path": "/Users/%/Library/q", "columns": ["agent"], "platform": "darwin"}}
}"#;

async fn switched_off(world: &World) -> Vec<String> {
    let sql = "SELECT 'query ' || name FROM queries WHERE NOT enabled UNION ALL SELECT 'pack ' || name FROM packs WHERE NOT enabled \
        UNION ALL SELECT 'decorator ' || name FROM decorators WHERE NOT enabled \
        UNION ALL SELECT 'file path ' || category FROM file_paths WHERE NOT enabled \
        UNION ALL SELECT 'section ' || key FROM config_sections WHERE NOT enabled ORDER BY 1";
    world.test_db.texts(sql).await
}

#[tokio::test]
async fn sql_may_read_the_tables_and_views_that_come_with_it() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let (page, applied) = import(&mut browser, &[TARGET], ("all.conf", CONF)).await;
    assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.body);
    assert!(!page.body.contains("switched off. "), "{}", page.body);
    assert_eq!(switched_off(&world).await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn what_reads_an_unsound_view_of_the_same_import_comes_in_switched_off() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let broken = CONF.replace(
        "SELECT agent, path FROM quarantine",
        "DELETE FROM quarantine",
    );
    let (page, applied) = import(&mut browser, &[TARGET], ("all.conf", &broken)).await;
    assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.body);
    assert!(page.body.contains("views, recent"), "{}", page.body);
    let off = [
        "decorator load 1",
        "file path found",
        "pack all",
        "query q",
        "query quarantined",
        "section views",
    ];
    assert_eq!(switched_off(&world).await, off);
    // Mended, it comes on where that is wanted; else it is said that it stays off.
    let (_, page) = shown(&mut browser, &[TARGET], ("all.conf", CONF)).await;
    assert!(page.body.contains("stays so"), "{}", page.body);
    import(&mut browser, &[TARGET], ("all.conf", CONF)).await;
    assert_eq!(switched_off(&world).await, off);
    let (page, applied) = import(
        &mut browser,
        &[TARGET, ("switch_on", "on")],
        ("all.conf", CONF),
    )
    .await;
    assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.body);
    assert!(!page.body.contains("stays so"), "{}", page.body);
    assert_eq!(switched_off(&world).await, [""; 0]);
    world.end().await;
}

#[tokio::test]
async fn sql_that_comes_again_is_checked_for_the_nodes_that_have_it() {
    let world = World::new().await;
    world.user("editor", "editor").await;
    let token = world.token("editor").await;
    let pack =
        r#"{"queries": {"history": {"query": "SELECT * FROM shell_history", "interval": 60}}}"#;
    // For every node it would be refused: laptops are denied this table.
    let (_, notes) = rest_import(&world, &token, TARGET.1, &[("p.conf", pack)]).await;
    assert!(notes.is_empty(), "{notes:?}");
    let again = rest_import(&world, &token, "", &[("p.conf", pack)]).await;
    assert_eq!(again, (Vec::new(), Vec::new()));
    assert_eq!(switched_off(&world).await, [""; 0]);
    world.end().await;
}
