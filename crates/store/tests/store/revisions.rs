//! Revisions: everything is put back as it was, with its ids.

use chrono::{DateTime, Utc};
use ostiary_domain::revision::diff;
use ostiary_store::config_revisions::{self, NewRevision};
use ostiary_store::testing::TestDb;
use ostiary_store::{Db, Tx, config_parts};

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

const SEED: &str = "
    INSERT INTO packs (id, name, discovery, extra, target, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000a1', 'one', '{SELECT 1,\"SELECT 2, 3\"}', '{\"z\": 1, \"a\": [1.5]}', 'prod', now(), now()),
        ('00000000-0000-0000-0000-0000000000a2', 'two', '{}', '{}', '', now(), now());
    INSERT INTO queries (id, pack_id, name, sql, interval_seconds, shard, position, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000b1', '00000000-0000-0000-0000-0000000000a1', 'users', 'SELECT ''é''', 60, 50, 7, now(), now()),
        ('00000000-0000-0000-0000-0000000000b2', NULL, 'users', 'SELECT 2', 60, NULL, 0, now(), now());
    INSERT INTO options (id, name, value, target, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000c1', 'verbose', 'true', '', now(), now()),
        ('00000000-0000-0000-0000-0000000000c2', 'verbose', 'false', 'lab', now(), now());
    INSERT INTO file_paths (id, category, globs, enabled, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000d1', 'etc', '{/etc/%%}', false, now(), now());
    INSERT INTO decorators (id, name, moment, interval_seconds, sql, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000e1', 'd', 'interval', 60, 'SELECT 1', now(), now());
    INSERT INTO config_sections (id, key, name, value, created_at, updated_at) VALUES
        ('00000000-0000-0000-0000-0000000000f1', 'views', 'v', '{\"a\": \"SELECT 1\"}', now(), now());";

async fn begin(manager: &Db) -> Tx {
    let mut tx = manager.begin().await.unwrap();
    config_revisions::lock(&mut tx).await.unwrap();
    tx
}

#[tokio::test]
async fn a_return_puts_everything_back_with_its_ids() {
    let test = TestDb::new().await;
    test.execute(SEED).await;
    let manager = test.as_role("ostiary_manager");
    let mut tx = begin(&manager).await;
    let kept = config_revisions::objects(&mut tx).await.unwrap();
    assert_eq!(kept.count(), 9, "{kept:?}");
    let parts = config_parts::load(&mut tx).await.unwrap();
    let revision = NewRevision {
        user_id: None,
        user_name: "x",
        what: "Made it",
        objects: &kept,
    };
    let number = config_revisions::insert(&mut tx, &revision, at())
        .await
        .unwrap();
    Db::commit(tx).await.unwrap();
    assert_eq!(number, 1);
    // Changed, deleted, made anew; names exchanged; a pack with its queries gone.
    test.execute(
        "UPDATE packs SET name = 'x' WHERE name = 'one';
         UPDATE packs SET name = 'one', enabled = false WHERE name = 'two';
         UPDATE packs SET name = 'two' WHERE name = 'x';
         DELETE FROM packs WHERE name = 'two';
         DELETE FROM options WHERE target = 'lab';
         UPDATE options SET target = 'lab', value = '1';
         DELETE FROM file_paths; DELETE FROM config_sections;
         INSERT INTO queries (id, name, sql, interval_seconds, created_at, updated_at)
         VALUES (gen_random_uuid(), 'new', 'SELECT 3', 60, now(), now());",
    )
    .await;
    let mut tx = begin(&manager).await;
    let changed = config_revisions::objects(&mut tx).await.unwrap();
    assert_eq!(diff(&kept, &changed).len(), 8);
    let (line, found) = config_revisions::find(&mut tx, 1).await.unwrap().unwrap();
    assert_eq!((line.what.as_str(), &found), ("Made it", &kept));
    assert_eq!(line.content_hash, kept.hash());
    config_revisions::restore(&mut tx, &found, at())
        .await
        .unwrap();
    let restored = config_revisions::objects(&mut tx).await.unwrap();
    assert_eq!(diff(&kept, &restored), []);
    assert_eq!(restored, kept);
    let again = config_parts::load(&mut tx).await.unwrap();
    assert_eq!(again, parts);
    Db::commit(tx).await.unwrap();
    let built_in =
        "SELECT count(*)::text FROM queries JOIN packs ON packs.id = pack_id WHERE built_in";
    assert_eq!(test.texts(built_in).await, ["5"]);
    test.drop().await;
}

#[tokio::test]
async fn a_revision_of_an_older_release_lacks_columns_and_can_be_returned_to() {
    let test = TestDb::new().await;
    test.execute(SEED).await;
    let manager = test.as_role("ostiary_manager");
    let mut tx = begin(&manager).await;
    let mut kept = config_revisions::objects(&mut tx).await.unwrap();
    for row in kept.0.get_mut("queries").unwrap().values_mut() {
        row.shift_remove("startup_priority");
        row.shift_remove("enabled");
        row.insert("gone_since".into(), "x".into());
    }
    kept.0.remove("config_sections");
    config_revisions::restore(&mut tx, &kept, at())
        .await
        .unwrap();
    let restored = config_revisions::objects(&mut tx).await.unwrap();
    assert!(restored.0["config_sections"].is_empty());
    assert_eq!(restored.0["queries"].len(), 2);
    drop(tx);
    test.drop().await;
}

#[tokio::test]
async fn old_revisions_go_but_not_those_that_a_roll_out_begins_from() {
    let test = TestDb::new().await;
    let manager = test.as_role("ostiary_manager");
    let mut tx = begin(&manager).await;
    let objects = config_revisions::objects(&mut tx).await.unwrap();
    for _ in 0..6 {
        let revision = NewRevision {
            user_id: None,
            user_name: "x",
            what: "w",
            objects: &objects,
        };
        config_revisions::insert(&mut tx, &revision, at())
            .await
            .unwrap();
    }
    Db::commit(tx).await.unwrap();
    test.execute(
        "INSERT INTO rollouts (id, state, base_revision, revision, base_parts, shares, threshold, user_name, started_at, stage_started_at)
         VALUES (gen_random_uuid(), 'running', 2, 3, '', '{100}', 0, 'x', now(), now())",
    )
    .await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    assert_eq!(config_revisions::delete_old(&mut conn, 3).await.unwrap(), 2);
    let left = test
        .texts("SELECT number::text FROM config_revisions ORDER BY number")
        .await;
    assert_eq!(left, ["2", "4", "5", "6"]);
    drop(conn);
    test.drop().await;
}
