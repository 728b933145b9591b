//! Merging nodes, and what an api is told about changes of nodes.

use chrono::TimeDelta;
use ostiary_domain::ids::NodeId;
use ostiary_store::node_merges::{self, Merge};
use ostiary_store::testing::TestDb;
use ostiary_store::{Db, Options, node_conflicts, node_keys};
use uuid::Uuid;

const GONE: &str = "01900000-0000-7000-8000-00000000000a";
const KEPT: &str = "01900000-0000-7000-8000-00000000000b";

fn id(text: &str) -> NodeId {
    NodeId(text.parse::<Uuid>().unwrap())
}

fn as_role(test: &TestDb, role: &str) -> Db {
    let options = Options {
        url: test.url(Some(role)),
        max_connections: 2,
        acquire_timeout_ms: 3_000,
        statement_timeout_ms: 10_000,
    };
    Db::prepare(&options, "identity-test").unwrap()
}

/// Two nodes with something of everything; the one that will be gone was seen last.
async fn two_nodes(test: &TestDb) {
    for (node, number, minutes) in [(GONE, 1, 1), (KEPT, 2, 90)] {
        test.execute(&format!(
            r#"
            INSERT INTO nodes (id, host_identifier, hostname, instance_id, hardware_uuid, enrolled_at, first_enrolled_at, lines_lost)
                VALUES ('{node}', 'h', 'host-{number}', 'i{number}', 'u', now() - interval '{minutes} minutes',
                    now() - interval '{number} days', {number});
            INSERT INTO node_identifiers VALUES ('{node}', 'instance', 'i{number}'), ('{node}', 'hardware_uuid', 'u');
            INSERT INTO node_keys (id, node_id, key_sha256, created_at) VALUES (gen_random_uuid(), '{node}', '\x0{number}', now());
            INSERT INTO tags (id, name, created_at) VALUES (gen_random_uuid(), 'only-{number}', now());
            INSERT INTO node_tags SELECT '{node}', id FROM tags WHERE name = 'only-{number}';
            INSERT INTO node_checkins (node_id, last_seen_at) VALUES ('{node}', now() - interval '{minutes} minutes');
            INSERT INTO config_documents (hash, document, created_at) VALUES ('\x0{number}', '{{}}', now());
            INSERT INTO node_configs VALUES ('{node}', '\x0{number}', now());
            INSERT INTO query_names (name, first_node_id, created_at)
                VALUES ('both', '{node}', now()), ('only-{number}', '{node}', now()) ON CONFLICT DO NOTHING;
            INSERT INTO present_rows (node_id, query_name_id, content_hash, row_count, rows, changed_at)
                SELECT '{node}', id, '\x00', {number}, '\x00', now() FROM query_names WHERE name IN ('both', 'only-{number}');
            INSERT INTO post_fingerprints VALUES ('{node}', 'r', {number}, now(), '\x00');
            INSERT INTO pending (node_id, kind, batch_id, received_at, due_at) VALUES ('{node}', 'b', {number}, now(), now());
            INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, row_count, rows)
                SELECT '{node}', 1, n, now() - interval '1 hour' * (n % 20), now(), 0, 1, '\x00' FROM generate_series(1, 50) AS n;
            INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
                SELECT '{node}', n, now() - interval '1 hour' * n, now(), 1, 'x' FROM generate_series(1, 10) AS n;
            INSERT INTO unreadable (id, node_id, received_at, reason, data) VALUES (gen_random_uuid(), '{node}', now(), 'x', '\x00');
            INSERT INTO unreadable_dropped VALUES ('{node}', {number}, 10, now());
            INSERT INTO rules (id, name, conditions, severity, created_at, updated_at)
                VALUES ('01900000-0000-7000-8000-0000000000e1', 'r', '{{}}', 'high', now(), now()) ON CONFLICT DO NOTHING;
            INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at,
                last_matched_at, match_count)
                SELECT gen_random_uuid(), '01900000-0000-7000-8000-0000000000e1', 'r', '{node}', 'host-{number}', entity, 'e', 'high',
                    'open', now(), now(), 3
                FROM unnest(ARRAY['\xff', '\x0{number}']::bytea[]) AS entity;
            INSERT INTO live_queries (id, wire_id, sql, node_ids, created_at, expires_at)
                VALUES (gen_random_uuid(), 'lq-{number}', 'SELECT 1', ARRAY['{node}']::uuid[], now(), now());
            INSERT INTO live_query_tasks (live_query_id, node_id, state)
                SELECT id, '{node}', 'done' FROM live_queries WHERE wire_id = 'lq-{number}';
            "#
        ))
        .await;
    }
    test.execute(&format!(
        "INSERT INTO node_conflicts (node_id, other_id, reason, noted_at) VALUES ('{GONE}', '{KEPT}', 'hardware', now());
         UPDATE nodes SET conflict_with = '{KEPT}' WHERE id = '{GONE}'"
    ))
    .await;
}

#[tokio::test]
async fn a_merge_loses_nothing_of_either_node() {
    let test = TestDb::new().await;
    two_nodes(&test).await;
    test.execute(&format!(
        r#"INSERT INTO noted_facts (node_id, name, noted_at, columns) VALUES ('{GONE}', 'conflict', now(), '{{"of": "gone"}}'),
            ('{KEPT}', 'conflict', now(), '{{"of": "kept"}}'), ('{GONE}', 'config_not_taken_up', now(), '{{"of": "gone"}}')"#
    ))
    .await;
    let manager = as_role(&test, "ostiary_manager");
    let merge = Merge {
        gone: id(GONE),
        kept: id(KEPT),
        reestablished: false,
        by: None,
        at: crate::machine_time(),
    };
    let mut tx = manager.begin().await.unwrap();
    let moved = node_merges::merge(&mut tx, &merge).await.unwrap().unwrap();
    Db::commit(tx).await.unwrap();
    assert!(
        moved
            .iter()
            .any(|(table, rows)| table == "node_keys" && *rows == 1),
        "{moved:?}"
    );
    let one = |sql: &'static str| {
        let test = &test;
        async move { test.texts(sql).await.join(" ") }
    };
    // What was noted of facts ends on the node that stays.
    assert_eq!(
        one("SELECT concat_ws(' ', name, columns->>'of', right(node_id::text, 1)) FROM noted_facts ORDER BY 1").await,
        "config_not_taken_up gone b conflict kept b"
    );
    // Of the node that was seen last: what it said of itself, its config, its rows of a query that both ran.
    assert_eq!(
        one(
            "SELECT concat_ws(' ', id, hostname, instance_id, lines_lost, conflict_with IS NULL,
            first_enrolled_at < now() - interval '47 hours') FROM nodes"
        )
        .await,
        format!("{KEPT} host-1 i1 3 t t")
    );
    assert_eq!(
        one("SELECT document_hash::text FROM node_configs").await,
        r"\x01"
    );
    assert_eq!(
        one("SELECT (last_seen_at > now() - interval '5 minutes')::text FROM node_checkins").await,
        "true"
    );
    assert_eq!(
        one("SELECT name || row_count FROM present_rows JOIN query_names ON query_names.id = query_name_id ORDER BY 1").await,
        "both1 only-11 only-22"
    );
    // Of both: everything else.
    for (sql, expected) in [
        ("SELECT value FROM node_identifiers ORDER BY 1", "i1 i2 u"),
        (
            "SELECT key_sha256::text FROM node_keys WHERE revoked_at IS NULL ORDER BY 1",
            r"\x01 \x02",
        ),
        (
            "SELECT name FROM node_tags JOIN tags ON tags.id = tag_id ORDER BY 1",
            "only-1 only-2",
        ),
        (
            "SELECT batch_id::text FROM post_fingerprints ORDER BY 1",
            "1 2",
        ),
        ("SELECT batch_id::text FROM pending ORDER BY 1", "1 2"),
        ("SELECT count(*)::text FROM live_query_tasks", "2"),
        ("SELECT count(*)::text FROM node_conflicts", "0"),
    ] {
        assert_eq!(test.texts(sql).await.join(" "), expected, "{sql}");
    }
    assert_eq!(
        one("SELECT DISTINCT unnest(node_ids)::text FROM live_queries").await,
        KEPT
    );
    assert_eq!(
        one("SELECT concat_ws(':', entity_hash, state, match_count, node_name) FROM findings ORDER BY 1").await,
        r"\x01:open:3:host-1 \x02:open:3:host-1 \xff:open:6:host-1 \xff:resolved:3:host-1"
    );
    history_follows(&test).await;
    manager.close().await;
    test.drop().await;
}

/// Events, status logs and unreadable data in slices; and a post that an api took for the old node a moment later.
async fn history_follows(test: &TestDb) {
    let worker = as_role(test, "ostiary_worker");
    let now = crate::machine_time();
    let mut conn = worker.acquire().await.unwrap();
    let mut slices = 0;
    while node_merges::move_history(&mut conn, id(GONE), now)
        .await
        .unwrap()
        > 0
    {
        slices += 1;
    }
    assert!(slices > 2, "{slices}");
    for (table, rows) in [
        ("events", "100"),
        ("status_logs", "20"),
        ("unreadable", "2"),
    ] {
        let sql = format!("SELECT count(*)::text FROM {table} WHERE node_id = '{KEPT}'");
        assert_eq!(test.texts(&sql).await, [rows], "{table}");
    }
    let dropped = "SELECT concat_ws(' ', node_id, items, bytes) FROM unreadable_dropped";
    assert_eq!(test.texts(dropped).await, [format!("{KEPT} 3 20")]);
    assert_eq!(
        node_merges::list_unmoved(&mut conn, 9).await.unwrap(),
        [id(GONE)]
    );
    test.execute(&format!(
        "INSERT INTO pending (node_id, kind, batch_id, received_at, due_at) VALUES ('{GONE}', 'b', 9, now(), now())"
    ))
    .await;
    assert_eq!(
        node_merges::follow(&mut conn, &[id(GONE), id(KEPT)])
            .await
            .unwrap(),
        1
    );
    let later = now + TimeDelta::hours(1);
    node_merges::move_history(&mut conn, id(GONE), later)
        .await
        .unwrap();
    assert_eq!(node_merges::list_unmoved(&mut conn, 9).await.unwrap(), []);
    drop(conn);
    worker.close().await;
}

/// A later migration that keeps something of nodes without a foreign key must say what a merge does with it.
#[tokio::test]
async fn whatever_names_a_node_is_moved_by_a_merge() {
    const WITHOUT_KEY: [&str; 13] = [
        // moved by merge_nodes
        "present_rows",
        "post_fingerprints",
        "pending",
        // moved by merge
        "finding_changes",
        "noted_facts",
        // made one of two by rule_merges
        "rule_value_nodes",
        "rule_times",
        // moved by move_history
        "events",
        "status_logs",
        "unreadable",
        "unreadable_dropped",
        // kept as they came, for days
        "log_batches",
        // told to memories of the api
        "node_changes",
    ];
    let test = TestDb::new().await;
    let unknown = test
        .texts(
            "SELECT DISTINCT c.table_name::text FROM information_schema.columns c
             JOIN pg_class t ON t.relname = c.table_name AND t.relkind IN ('r', 'p') AND NOT t.relispartition
             WHERE c.table_schema = 'public' AND c.column_name = 'node_id'
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = t.oid
                    AND k.confrelid = 'nodes'::regclass)
             ORDER BY 1",
        )
        .await;
    let unknown: Vec<_> = unknown
        .iter()
        .filter(|table| !WITHOUT_KEY.contains(&table.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "what happens to {unknown:?} in a merge?"
    );
    test.drop().await;
}

#[tokio::test]
async fn a_pair_that_was_kept_apart_is_not_flagged_again() {
    let test = TestDb::new().await;
    two_nodes(&test).await;
    let mut conn = test.db.acquire().await.unwrap();
    assert_eq!(node_conflicts::count(&mut conn).await.unwrap(), 1);
    // From either side.
    node_conflicts::keep_apart(&mut conn, id(KEPT), id(GONE), None, crate::machine_time())
        .await
        .unwrap();
    assert_eq!(node_conflicts::count(&mut conn).await.unwrap(), 0);
    let flags = test
        .texts("SELECT count(*)::text FROM nodes WHERE conflict_with IS NOT NULL")
        .await;
    assert_eq!(flags, ["0"]);
    drop(conn);
    test.drop().await;
}

#[tokio::test]
async fn changes_of_nodes_are_told_one_by_one() {
    let test = TestDb::new().await;
    let generation = async || -> i64 {
        let sql = "SELECT generation::text FROM generations WHERE name = 'node_keys'";
        test.texts(sql).await[0].parse().unwrap()
    };
    let first = generation().await;
    test.execute(&format!(
        "INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{GONE}', 'h', now(), now());
         INSERT INTO tags (id, name, created_at) VALUES ('{GONE}', 'a', now()), ('{KEPT}', 'b', now());
         INSERT INTO node_tags VALUES ('{GONE}', '{GONE}');
         INSERT INTO node_keys (id, node_id, key_sha256, created_at) VALUES ('{GONE}', '{GONE}', '\\x01', now())"
    ))
    .await;
    assert_eq!(
        generation().await,
        first,
        "a new node is in nobody's memory"
    );
    let mut conn = test.db.acquire().await.unwrap();
    for change in [
        format!("INSERT INTO node_tags VALUES ('{GONE}', '{KEPT}')"),
        format!("DELETE FROM node_tags WHERE tag_id = '{KEPT}'"),
        format!("UPDATE nodes SET disabled_at = now() WHERE id = '{GONE}'"),
        format!("UPDATE node_keys SET revoked_at = now() WHERE node_id = '{GONE}'"),
        format!("DELETE FROM nodes WHERE id = '{GONE}'"),
    ] {
        let before = generation().await;
        test.execute(&change).await;
        let after = generation().await;
        assert!(after > before, "{change}");
        assert_eq!(
            node_keys::list_changed(&mut conn, before, after)
                .await
                .unwrap(),
            Some(vec![id(GONE)]),
            "{change}"
        );
    }
    let before = generation().await;
    test.execute("UPDATE nodes SET hostname = 'x'; UPDATE node_keys SET last_used_at = now()")
        .await;
    assert_eq!(generation().await, before);
    // Somebody who only bumps the number: all must be read.
    test.execute("UPDATE generations SET generation = generation + 1 WHERE name = 'node_keys'")
        .await;
    assert_eq!(
        node_keys::list_changed(&mut conn, before, before + 1)
            .await
            .unwrap(),
        None
    );
    drop(conn);
    test.drop().await;
}

#[tokio::test]
async fn tags_that_differ_in_capitals_only_are_one() {
    let test = TestDb::new().await;
    let mut conn = test.db.acquire().await.unwrap();
    let now = crate::machine_time();
    let tag = |number: u128| ostiary_domain::ids::TagId(Uuid::from_u128(number));
    let first = ostiary_store::tags::ensure(&mut conn, tag(1), "Prod", now)
        .await
        .unwrap();
    let second = ostiary_store::tags::ensure(&mut conn, tag(2), "prod", now)
        .await
        .unwrap();
    assert_eq!(first, second);
    let refused = ostiary_store::tags::insert(&mut conn, tag(3), "PROD", "", now)
        .await
        .unwrap_err();
    assert!(ostiary_store::tags::is_taken(&refused), "{refused}");
    drop(conn);
    test.drop().await;
}
