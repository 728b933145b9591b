-- Users come first: much of what follows says who made it.
CREATE TABLE users (
    id uuid NOT NULL,
    name text NOT NULL,
    email text,
    password_hash text,
    role text NOT NULL,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL,
    password_changed_at timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_role_check CHECK (role IN ('admin', 'editor', 'viewer'))
);
CREATE UNIQUE INDEX users_name_key ON users (lower(name));

CREATE TABLE tags (
    id uuid NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    CONSTRAINT tags_pkey PRIMARY KEY (id),
    CONSTRAINT tags_name_key UNIQUE (name)
);

-- Sealed with the api's own key (so that an admin can see a secret again after step-up), found by an HMAC of it.
CREATE TABLE enroll_secrets (
    id uuid NOT NULL,
    name text NOT NULL,
    secret_hmac bytea NOT NULL,
    secret_sealed bytea NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    require_approval boolean NOT NULL DEFAULT false,
    expires_at timestamptz,
    use_limit integer,
    uses integer NOT NULL DEFAULT 0,
    revoked_at timestamptz,
    created_by uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT enroll_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT enroll_secrets_name_key UNIQUE (name),
    CONSTRAINT enroll_secrets_secret_hmac_key UNIQUE (secret_hmac),
    CONSTRAINT enroll_secrets_use_limit_check CHECK (use_limit > 0),
    CONSTRAINT enroll_secrets_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE SET NULL
);

CREATE TABLE nodes (
    id uuid NOT NULL,
    host_identifier text NOT NULL,
    display_name text,
    hostname text NOT NULL DEFAULT '',
    -- 'linux', 'darwin', 'windows', 'freebsd' or '' when unknown
    platform text NOT NULL DEFAULT '',
    os_name text NOT NULL DEFAULT '',
    os_version text NOT NULL DEFAULT '',
    osquery_version text NOT NULL DEFAULT '',
    hardware_uuid text NOT NULL DEFAULT '',
    hardware_serial text NOT NULL DEFAULT '',
    hardware_model text NOT NULL DEFAULT '',
    instance_id text NOT NULL DEFAULT '',
    -- as sent at the latest enrollment, whole (NUL and invalid UTF-8 replaced)
    host_details json NOT NULL DEFAULT '{}',
    -- the latest row of each built-in query, by name
    vitals json NOT NULL DEFAULT '{}',
    -- osquery_info.config_hash as the node last reported it
    config_hash text NOT NULL DEFAULT '',
    enroll_secret_id uuid,
    enrolled_at timestamptz NOT NULL,
    first_enrolled_at timestamptz NOT NULL,
    disabled_at timestamptz,
    -- another node claims the same hardware while this one is alive
    conflict_with uuid,
    -- set when a known machine came back with a wiped database and was taken for the same by its secret
    identity_reestablished_at timestamptz,
    offline_noted_at timestamptz,
    silent_noted_at timestamptz,
    lines_lost bigint NOT NULL DEFAULT 0,
    CONSTRAINT nodes_pkey PRIMARY KEY (id),
    CONSTRAINT nodes_enroll_secret_id_fkey FOREIGN KEY (enroll_secret_id) REFERENCES enroll_secrets (id) ON DELETE SET NULL
);
CREATE INDEX nodes_host_identifier_idx ON nodes (lower(host_identifier));
CREATE INDEX nodes_hostname_idx ON nodes (lower(hostname));
CREATE INDEX nodes_enroll_secret_id_idx ON nodes (enroll_secret_id);

-- Values are lower-cased; kinds: instance, hardware_uuid, serial, host_identifier.
CREATE TABLE node_identifiers (
    node_id uuid NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    CONSTRAINT node_identifiers_pkey PRIMARY KEY (kind, value, node_id),
    CONSTRAINT node_identifiers_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT node_identifiers_kind_check CHECK (kind IN ('instance', 'hardware_uuid', 'serial', 'host_identifier'))
);
CREATE INDEX node_identifiers_node_id_idx ON node_identifiers (node_id);

CREATE TABLE node_keys (
    id uuid NOT NULL,
    node_id uuid NOT NULL,
    key_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT node_keys_pkey PRIMARY KEY (id),
    CONSTRAINT node_keys_key_sha256_key UNIQUE (key_sha256),
    CONSTRAINT node_keys_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
);
CREATE INDEX node_keys_node_id_idx ON node_keys (node_id);

CREATE TABLE node_tags (
    node_id uuid NOT NULL,
    tag_id uuid NOT NULL,
    CONSTRAINT node_tags_pkey PRIMARY KEY (node_id, tag_id),
    CONSTRAINT node_tags_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT node_tags_tag_id_fkey FOREIGN KEY (tag_id) REFERENCES tags (id) ON DELETE CASCADE
);
CREATE INDEX node_tags_tag_id_idx ON node_tags (tag_id);

-- Narrow and often written, in one statement for many nodes; free room in each page keeps the updates in place.
CREATE TABLE node_checkins (
    node_id uuid NOT NULL,
    last_seen_at timestamptz NOT NULL,
    last_ip inet,
    enroll_at timestamptz,
    config_at timestamptz,
    log_at timestamptz,
    distributed_read_at timestamptz,
    distributed_write_at timestamptz,
    -- of the User-Agent, e.g. 5.23.0
    client_version text NOT NULL DEFAULT '',
    -- when the node last sent result rows that prove its schedule runs
    results_at timestamptz,
    CONSTRAINT node_checkins_pkey PRIMARY KEY (node_id),
    CONSTRAINT node_checkins_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX node_checkins_last_seen_at_idx ON node_checkins (last_seen_at);

-- Which keys and tags are in force is kept in memory by every api process.
-- A new key bumps nothing: who does not know it asks Postgres, and enrollments would otherwise queue up for the generation's row.
CREATE TRIGGER node_keys_bump AFTER UPDATE OF revoked_at OR DELETE ON node_keys
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('node_keys');
CREATE TRIGGER nodes_bump AFTER UPDATE OF disabled_at OR DELETE ON nodes
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('node_keys');
CREATE TRIGGER node_tags_bump AFTER INSERT OR DELETE OR UPDATE ON node_tags
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('node_keys');

GRANT SELECT, INSERT, UPDATE ON nodes, node_keys, node_checkins TO ostiary_api;
GRANT SELECT, INSERT, DELETE ON node_identifiers TO ostiary_api;
GRANT SELECT, INSERT ON tags, node_tags TO ostiary_api;
-- Not secret_sealed: it holds the key that opens it, and needs the HMAC only.
GRANT SELECT (id, name, secret_hmac, tags, require_approval, expires_at, use_limit, uses, revoked_at) ON enroll_secrets TO ostiary_api;
GRANT UPDATE (uses) ON enroll_secrets TO ostiary_api;

GRANT SELECT, INSERT, UPDATE, DELETE ON users, tags, enroll_secrets, nodes, node_identifiers, node_keys, node_tags TO ostiary_manager;
GRANT SELECT, DELETE ON node_checkins TO ostiary_manager;

GRANT SELECT, UPDATE ON nodes, node_checkins TO ostiary_worker;
GRANT SELECT ON tags, node_tags, node_identifiers TO ostiary_worker;
GRANT INSERT ON node_checkins TO ostiary_worker;
