-- Tables of osquery that some nodes are never asked: for the check of SQL they do not exist where such a node can be reached.
CREATE TABLE table_denials (
    id uuid NOT NULL,
    -- tag expression: the nodes
    target text NOT NULL,
    -- in lower case; 'auto_table_construction' stands for every automatic table
    tables text[] NOT NULL,
    -- ends the sentence "The table … cannot be used here: …"
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT table_denials_pkey PRIMARY KEY (id),
    CONSTRAINT table_denials_target_key UNIQUE (target),
    CONSTRAINT table_denials_tables_check CHECK (cardinality(tables) > 0)
);

-- Which tables a piece of SQL reads, as the check found out when it was saved: what is handed out is compared with the denials.
CREATE TABLE checked_sql (
    sql_sha256 bytea NOT NULL,
    tables text[] NOT NULL,
    checked_at timestamptz NOT NULL,
    CONSTRAINT checked_sql_pkey PRIMARY KEY (sql_sha256),
    CONSTRAINT checked_sql_sql_sha256_check CHECK (octet_length(sql_sha256) = 32)
);

-- Tables that nodes reported and osquery does not ship: of extensions and automatic ones.
CREATE TABLE known_tables (
    -- 'linux', 'darwin' or 'windows'
    platform text NOT NULL,
    name text NOT NULL,
    -- [{"name": "…", "hidden": false}, …]
    columns json NOT NULL,
    first_reported_at timestamptz NOT NULL,
    last_reported_at timestamptz NOT NULL,
    -- who reported it last
    node_id uuid,
    CONSTRAINT known_tables_pkey PRIMARY KEY (platform, name),
    CONSTRAINT known_tables_platform_check CHECK (platform IN ('linux', 'darwin', 'windows')),
    CONSTRAINT known_tables_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE SET NULL
);
CREATE INDEX known_tables_node_id_idx ON known_tables (node_id);

CREATE TRIGGER table_denials_bump AFTER INSERT OR UPDATE OR DELETE ON table_denials
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER table_denials_bump_live_queries AFTER INSERT OR UPDATE OR DELETE ON table_denials
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('live_queries');

-- The strict list for laptops: what people do and write, not how the machine is kept. Contents and names of files, what was typed
-- and browsed, messages, places, secrets. What tells whether a laptop is kept well stays: hashes, extensions, programs, preferences.
-- Servers have no such list.
INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at) VALUES (
    '01930000-0000-7000-8000-000000001200',
    'laptop',
    '{asl,auto_table_construction,carves,curl,dns_cache,dns_lookup_events,extended_attributes,file,keychain_items,magic,mdfind,mdls,ntfs_journal_events,office_mru,plist,powershell_events,process_envs,process_open_files,quicklook_cache,recent_files,shell_history,shellbags,unified_log,user_interaction_events,userassist,wifi_networks,wifi_survey,windows_search}',
    'laptops are personal, and it tells of the files of people, or of what they type, open, browse or where they are.',
    now(), now()
);

GRANT SELECT ON table_denials, checked_sql TO ostiary_api, ostiary_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON table_denials, checked_sql, known_tables TO ostiary_manager;
