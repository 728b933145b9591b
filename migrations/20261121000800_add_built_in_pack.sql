-- The built-in pack: what Ostiary itself wants to know of every node. Its snapshots give the vitals, the hash of the config in force,
-- denylisted queries, and the proof that the schedule runs: a differential query that finds nothing new says nothing, a snapshot
-- always does.
INSERT INTO packs (id, name, description, built_in, created_at, updated_at)
VALUES ('01940000-0000-7000-8000-000000000001', 'ostiary', 'Vitals and health of every node, for Ostiary itself.', true, now(), now());

INSERT INTO queries (id, pack_id, name, sql, interval_seconds, snapshot, denylist, description, position, created_at, updated_at)
VALUES
    ('01940000-0000-7000-8000-000000000011', '01940000-0000-7000-8000-000000000001', 'osquery_info',
     'SELECT * FROM osquery_info;', 900, true, false,
     'Version of osquery, its instance, and the hash of the config in force.', 1, now(), now()),
    ('01940000-0000-7000-8000-000000000012', '01940000-0000-7000-8000-000000000001', 'osquery_schedule',
     'SELECT * FROM osquery_schedule;', 7200, true, false,
     'What each scheduled query costs, when it last ran, and whether it was denylisted.', 2, now(), now()),
    ('01940000-0000-7000-8000-000000000013', '01940000-0000-7000-8000-000000000001', 'system_info',
     'SELECT * FROM system_info;', 3600, true, false,
     'Host name, hardware and serial number.', 3, now(), now()),
    ('01940000-0000-7000-8000-000000000014', '01940000-0000-7000-8000-000000000001', 'os_version',
     'SELECT * FROM os_version;', 3600, true, false,
     'Operating system and its version.', 4, now(), now()),
    ('01940000-0000-7000-8000-000000000015', '01940000-0000-7000-8000-000000000001', 'uptime',
     'SELECT * FROM uptime;', 3600, true, false,
     'Since when the machine runs.', 5, now(), now());
