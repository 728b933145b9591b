//! What nodes and workers would have written, hostile where they can be.

use super::world::World;

pub(crate) const NODE: &str = "01900000-0000-7000-8000-000000000001";
pub(crate) const SILENCE: &str = "01900000-0000-7000-8000-0000000000a5";
pub(crate) const FINDING: &str = "01900000-0000-7000-8000-0000000000f1";
pub(crate) const RULE: &str = "01900000-0000-7000-8000-0000000000e1";
pub(crate) const DESTINATION: &str = "01900000-0000-7000-8000-0000000000d1";
pub(crate) const LIVE_QUERY: &str = "01900000-0000-7000-8000-0000000000c1";
pub(crate) const CARVE: &str = "01900000-0000-7000-8000-000000000091";
pub(crate) const UNREADABLE: &str = "01900000-0000-7000-8000-0000000000b1";

/// Text of a node that would be script in a careless page.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script>";

/// Rows as they are stored: the number of the codec, then zstd.
fn packed(json: &str) -> String {
    format!(
        "\\x01{}",
        hex::encode(zstd::stream::encode_all(json.as_bytes(), 1).unwrap())
    )
}

/// One node with everything about it: events, present rows, status logs, a finding, a delivery, a live query.
pub(crate) async fn one_of_everything(world: &World) {
    let db = &world.test_db;
    let present = packed(&format!(
        r#"[{{"port": "22", "name": "{HOSTILE}"}}, {{"port": "80"}}]"#
    ));
    let changes = packed(&format!(
        r#"[{{"action": "added", "columns": {{"port": "22", "name": "{HOSTILE}"}}, "decorations": {{"host": "h"}}}},
            {{"action": "added", "columns": {{"port": "23"}}}}, {{"action": "removed", "columns": {{"port": "21"}}}}]"#
    ));
    let nothing = packed("[]");
    db.execute(&format!(
        r#"
        INSERT INTO tags (id, name, created_at) VALUES ('01900000-0000-7000-8000-0000000000a1', 'prod', now());
        INSERT INTO nodes (id, host_identifier, hostname, platform, os_name, os_version, osquery_version, host_details, vitals,
            enrolled_at, first_enrolled_at)
        VALUES ('{NODE}', 'host-1', '{HOSTILE}', 'linux', 'Ubuntu', '24.04', '5.23.1',
            '{{"system_info": {{"cpu_brand": "{HOSTILE}"}}}}', '{{"uptime": {{"total_seconds": "7200"}}}}', now(), now());
        INSERT INTO node_keys (id, node_id, key_sha256, created_at)
            VALUES ('01900000-0000-7000-8000-0000000000a2', '{NODE}', '\x01', now());
        INSERT INTO node_tags VALUES ('{NODE}', '01900000-0000-7000-8000-0000000000a1');
        INSERT INTO node_checkins (node_id, last_seen_at, last_ip, config_at, log_at)
            VALUES ('{NODE}', now(), '192.0.2.7', now(), now());
        INSERT INTO query_names (name, first_node_id, created_at) VALUES ('pack/it/ports', '{NODE}', now());
        INSERT INTO present_rows (node_id, query_name_id, content_hash, row_count, rows, changed_at, complete)
            SELECT '{NODE}', id, '\x00', 2, '{present}', now(), true FROM query_names;
        INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, epoch, counter, actions,
            row_count, rows)
            SELECT '{NODE}', id, 1, now(), now(), 1800000000, 18446744073709551615, 3, 3, 3, '{changes}' FROM query_names;
        INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, snapshot, actions, row_count, rows)
            SELECT '{NODE}', id, 2, now(), now(), 1800000001, true, 0, 0, '{nothing}' FROM query_names;
        INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
            VALUES ('{NODE}', 1, now(), now(), 2, '{HOSTILE}');
        INSERT INTO unreadable (id, node_id, log_type, received_at, reason, data)
            VALUES ('{UNREADABLE}', '{NODE}', 'result', now(), 'no JSON', '\x3c736372697074');
        "#
    ))
    .await;
    db.execute(&format!(
        r#"
        INSERT INTO destinations (id, name, kind, settings_sealed, summary, created_at, updated_at)
            VALUES ('{DESTINATION}', 'mail', 'email', '\x00', 'mail to a@example.com', now(), now());
        INSERT INTO rules (id, name, conditions, severity, created_at, updated_at)
            VALUES ('{RULE}', 'New port', '{{"condition": "AND", "rules": []}}', 'high', now(), now());
        INSERT INTO rule_destinations VALUES ('{RULE}', '{DESTINATION}');
        INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, query_name,
            opened_at, last_matched_at, match_count)
            VALUES ('{FINDING}', '{RULE}', 'New port', '{NODE}', '{HOSTILE}', '\x00', 'port={HOSTILE}', 'high', 'open',
                'pack/it/ports', now(), now(), 2);
        INSERT INTO finding_matches (finding_id, matched_at, occurred_at, query_name, action, columns, counterpart)
            VALUES ('{FINDING}', now(), now(), 'pack/it/ports', 'removed', '{{"port": "21"}}', NULL),
                ('{FINDING}', now(), now(), 'pack/it/ports', 'added', '{{"port": "{HOSTILE}"}}', '{{"port": "21"}}');
        INSERT INTO finding_entries (finding_id, at, kind, user_name, text, columns)
            VALUES ('{FINDING}', now(), 'opened', '', '', NULL), ('{FINDING}', now(), 'commented', '{HOSTILE}', '{HOSTILE}', NULL),
                ('{FINDING}', now(), 'resolved', '', '{HOSTILE}', '{{"port": "{HOSTILE}"}}');
        INSERT INTO silences (id, rule_id, node_id, target, reason, ends_at, created_at, created_by_name)
            VALUES ('{SILENCE}', '{RULE}', '{NODE}', 'prod', '{HOSTILE}', now() + interval '2 hours', now(), 'ann');
        INSERT INTO alerts (id, finding_id, kind, body, created_at)
            VALUES ('01900000-0000-7000-8000-0000000000a3', '{FINDING}', 'opened', '{{}}', now());
        INSERT INTO deliveries (id, alert_id, finding_id, destination_id, destination_name, destination_kind, state, attempts,
            due_at, created_at, finished_at, last_answer)
            VALUES ('01900000-0000-7000-8000-0000000000a4', '01900000-0000-7000-8000-0000000000a3', '{FINDING}',
                '{DESTINATION}', 'mail', 'email', 'delivered', 1, now(), now(), now(), '250 {HOSTILE}');
        INSERT INTO delivery_attempts (delivery_id, started_at, duration_ms, outcome, answer, body)
            VALUES ('01900000-0000-7000-8000-0000000000a4', now(), 12, 'delivered', '250 {HOSTILE}', 'told: {HOSTILE}');
        INSERT INTO live_queries (id, wire_id, sql, target, target_all, created_at, expires_at)
            VALUES ('{LIVE_QUERY}', 'lq-1', 'SELECT 1', '*', true, now(), now() + interval '1 hour');
        INSERT INTO live_query_tasks (live_query_id, node_id, state, finished_at, status, row_count, rows)
            VALUES ('{LIVE_QUERY}', '{NODE}', 'done', now(), 0, 2, '[{{"a": "=1+1", "b": "{HOSTILE}"}}, {{"a": "x"}}]');
        INSERT INTO carves (id, node_id, carve_id, request_id, state, block_count, block_size, carve_size, received_blocks, started_at,
            ended_at, live_query_id, path, node_sha256, sha256, format, file_count, problem)
            VALUES ('{CARVE}', '{NODE}', 'guid-1', '{HOSTILE}', 'stored', 2, 10, 11, 2, now(), now(), '{LIVE_QUERY}', '/etc/{HOSTILE}',
                'aa', 'bb', 'tar.zst', 2, '{HOSTILE}');
        INSERT INTO carve_files (carve_id, position, path, size, modified_at)
            VALUES ('{CARVE}', 1, '/etc/{HOSTILE}', 7, now()), ('{CARVE}', 2, E'/a\u202efdp.exe', 0, NULL);
        INSERT INTO config_documents (hash, document, created_at) VALUES ('\x01', '{{"schedule":{{}}}}', now());
        INSERT INTO node_configs (node_id, document_hash, fetched_at) VALUES ('{NODE}', '\x01', now());
        "#
    ))
    .await;
}

/// More than a page of nodes, and of everything that is listed.
pub(crate) async fn many(world: &World) {
    world
        .test_db
        .execute(&format!(
            r#"
            INSERT INTO nodes (id, host_identifier, hostname, platform, enrolled_at, first_enrolled_at)
                SELECT gen_random_uuid(), 'host-' || n, 'web~' || (n / 2), 'darwin', now() - interval '2 days', now() - interval '2 days'
                FROM generate_series(100, 230) n;
            INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at,
                last_matched_at)
                SELECT gen_random_uuid(), '{RULE}', 'New port', '{NODE}', 'n', decode(md5(n::text), 'hex'), 'e',
                    (ARRAY['info', 'low', 'medium', 'high', 'critical'])[1 + n % 5], 'open', now() - n * interval '1 minute', now()
                FROM generate_series(1, 120) n;
            INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, message)
                SELECT '{NODE}', 1, now(), now(), n % 4, 'm' FROM generate_series(1, 230) n;
            INSERT INTO packs (id, name, target, created_at, updated_at)
                SELECT gen_random_uuid(), 'pack ' || n, 'prod', now(), now() FROM generate_series(1, 30) n;
            "#
        ))
        .await;
}
