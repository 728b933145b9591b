//! What is set right in a database that comes from a backup.

use ostiary_store::backups;
use ostiary_store::testing::TestDb;
use uuid::Uuid;

const NODE: &str = "01900000-0000-7000-8000-000000000001";

#[tokio::test]
async fn what_was_under_way_ends_with_a_reason() {
    let test = TestDb::new().await;
    test.execute(&format!(
        "INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{NODE}', 'h', now(), now());
         INSERT INTO live_queries (id, wire_id, sql, created_at, expires_at) VALUES ('{NODE}', 'lq', 'SELECT 1', now(), now() + '1 day');
         INSERT INTO live_query_tasks (live_query_id, node_id, state) VALUES ('{NODE}', '{NODE}', 'offered');
         INSERT INTO carves (id, node_id, carve_id, block_count, block_size, carve_size, state, started_at) VALUES
            ('{NODE}', '{NODE}', 'half', 2, 10, 20, 'receiving', now()),
            ('01900000-0000-7000-8000-000000000002', '{NODE}', 'whole', 1, 10, 10, 'received', now());
         INSERT INTO carve_blocks (carve_id, block_id, block_sha256, data)
            SELECT id, 0, sha256(''), '' FROM carves;"
    ))
    .await;
    test.execute(
        "WITH kept AS (
            INSERT INTO config_revisions (number, made_at, user_name, what, content_hash, objects)
            VALUES (1, now(), 'u', 'w', sha256(''), '') RETURNING number
         )
         INSERT INTO rollouts (id, state, base_revision, revision, base_parts, shares, threshold, user_name, started_at, stage_started_at)
         SELECT gen_random_uuid(), 'running', number, number, '', '{10}', 0, 'u', now(), now() FROM kept",
    )
    .await;
    let mut tx = test.db.begin().await.unwrap();
    let now = crate::machine_time();
    let settled = backups::settle(&mut tx, now).await.unwrap();
    ostiary_store::Db::commit(tx).await.unwrap();
    assert_eq!(
        (settled.live_queries, settled.carves, settled.rollout),
        (1, 1, true)
    );
    for (sql, expected) in [
        (
            "SELECT state FROM live_query_tasks WHERE message LIKE 'A backup was restored%'",
            "expired",
        ),
        (
            "SELECT carve_id || ' ' || state FROM carves WHERE problem LIKE 'A backup was restored%'",
            "half failed",
        ),
        (
            "SELECT state FROM rollouts WHERE reason LIKE 'A backup was restored%'",
            "halted",
        ),
        (
            "SELECT carve_id FROM carves JOIN carve_blocks b ON b.carve_id = carves.id",
            "whole",
        ),
    ] {
        let sql = sql.replace("SELECT carve_id FROM", "SELECT carves.carve_id FROM");
        assert_eq!(test.texts(&sql).await, [expected], "{sql}");
    }
    test.drop().await;
}

#[tokio::test]
async fn objects_that_no_carve_knows_are_found_once_after_a_restore() {
    let test = TestDb::new().await;
    let now = crate::machine_time();
    test.execute(&format!(
        "INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{NODE}', 'h', now(), now());
         INSERT INTO carves (id, node_id, carve_id, block_count, block_size, carve_size, started_at)
            VALUES ('{NODE}', '{NODE}', 'c', 1, 1, 1, now());
         INSERT INTO restores (id, restored_at, backup_made_at, schedule_epoch)
            VALUES ('{NODE}', now() - interval '8 days', now() - interval '9 days', 1);"
    ))
    .await;
    let worker = test.as_role("ostiary_worker");
    let mut conn = worker.acquire().await.unwrap();
    let unknown = Uuid::from_u128(7);
    let objects = [NODE.parse().unwrap(), unknown];
    let orphans = backups::orphans_among(&mut conn, &objects).await.unwrap();
    assert_eq!(orphans, [unknown]);
    let before = now - backups::ORPHANS_AFTER;
    let restored_at = backups::find_uncleared(&mut conn, before).await.unwrap();
    backups::note_cleared(&mut conn, restored_at.unwrap(), now)
        .await
        .unwrap();
    assert_eq!(
        backups::find_uncleared(&mut conn, before).await.unwrap(),
        None
    );
    drop(conn);
    test.drop().await;
}
