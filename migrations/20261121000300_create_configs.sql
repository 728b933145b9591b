-- What nodes are asked. `target` is a tag expression ('' is every node); `extra` keeps keys that osquery may know and we do not.
CREATE TABLE packs (
    id uuid NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    target text NOT NULL DEFAULT '',
    platform text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    shard smallint,
    discovery text[] NOT NULL DEFAULT '{}',
    extra json NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true,
    -- shipped with Ostiary: vitals, health; shown, not edited
    built_in boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT packs_pkey PRIMARY KEY (id),
    CONSTRAINT packs_name_key UNIQUE (name),
    CONSTRAINT packs_shard_check CHECK (shard BETWEEN 1 AND 100)
);

-- A query belongs to a pack, or (pack_id null) stands in the schedule itself with a target of its own.
CREATE TABLE queries (
    id uuid NOT NULL,
    pack_id uuid,
    name text NOT NULL,
    sql text NOT NULL,
    interval_seconds integer NOT NULL,
    snapshot boolean NOT NULL DEFAULT false,
    removed boolean NOT NULL DEFAULT true,
    denylist boolean NOT NULL DEFAULT true,
    platform text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    shard smallint,
    description text NOT NULL DEFAULT '',
    value text NOT NULL DEFAULT '',
    target text NOT NULL DEFAULT '',
    extra json NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true,
    position integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT queries_pkey PRIMARY KEY (id),
    CONSTRAINT queries_pack_id_name_key UNIQUE NULLS NOT DISTINCT (pack_id, name),
    CONSTRAINT queries_pack_id_fkey FOREIGN KEY (pack_id) REFERENCES packs (id) ON DELETE CASCADE,
    CONSTRAINT queries_interval_seconds_check CHECK (interval_seconds BETWEEN 1 AND 604800),
    CONSTRAINT queries_shard_check CHECK (shard BETWEEN 1 AND 100)
);

CREATE TABLE file_paths (
    id uuid NOT NULL,
    category text NOT NULL,
    globs text[] NOT NULL,
    exclude_globs text[] NOT NULL DEFAULT '{}',
    file_accesses boolean NOT NULL DEFAULT false,
    target text NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT file_paths_pkey PRIMARY KEY (id),
    CONSTRAINT file_paths_category_key UNIQUE (category)
);

CREATE TABLE decorators (
    id uuid NOT NULL,
    name text NOT NULL,
    -- 'load', 'always' or 'interval'
    moment text NOT NULL,
    interval_seconds integer,
    sql text NOT NULL,
    target text NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT decorators_pkey PRIMARY KEY (id),
    CONSTRAINT decorators_name_key UNIQUE (name),
    CONSTRAINT decorators_moment_check CHECK (
        (moment = 'interval' AND interval_seconds > 0 AND interval_seconds % 60 = 0)
        OR (moment IN ('load', 'always') AND interval_seconds IS NULL))
);

-- One option of osquery for the nodes of one target; of several that apply the highest priority wins, then the later name.
CREATE TABLE options (
    id uuid NOT NULL,
    name text NOT NULL,
    value json NOT NULL,
    target text NOT NULL DEFAULT '',
    priority integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT options_pkey PRIMARY KEY (id),
    CONSTRAINT options_name_target_key UNIQUE (name, target)
);

CREATE TABLE config_documents (
    -- sha-256 of the exact bytes
    hash bytea NOT NULL,
    document text COMPRESSION lz4 NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT config_documents_pkey PRIMARY KEY (hash)
);

-- What each node last fetched.
CREATE TABLE node_configs (
    node_id uuid NOT NULL,
    document_hash bytea NOT NULL,
    fetched_at timestamptz NOT NULL,
    CONSTRAINT node_configs_pkey PRIMARY KEY (node_id),
    CONSTRAINT node_configs_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT node_configs_document_hash_fkey FOREIGN KEY (document_hash) REFERENCES config_documents (hash)
) WITH (fillfactor = 80);
CREATE INDEX node_configs_document_hash_idx ON node_configs (document_hash);

CREATE TRIGGER packs_bump AFTER INSERT OR UPDATE OR DELETE ON packs FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER queries_bump AFTER INSERT OR UPDATE OR DELETE ON queries FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER file_paths_bump AFTER INSERT OR UPDATE OR DELETE ON file_paths FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER decorators_bump AFTER INSERT OR UPDATE OR DELETE ON decorators FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER options_bump AFTER INSERT OR UPDATE OR DELETE ON options FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');

GRANT SELECT ON packs, queries, file_paths, decorators, options TO ostiary_api, ostiary_worker;
GRANT SELECT, INSERT, UPDATE ON config_documents, node_configs TO ostiary_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON packs, queries, file_paths, decorators, options TO ostiary_manager;
GRANT SELECT ON config_documents, node_configs TO ostiary_manager;
GRANT SELECT, DELETE ON config_documents TO ostiary_worker;
GRANT SELECT ON node_configs TO ostiary_worker;
