-- Files collected from nodes. The api stores blocks before it acknowledges them, the worker joins them into one object in the
-- storage ([blobs]) and lists what is in it.
CREATE TABLE carves (
    id uuid NOT NULL,
    -- null once the node is deleted: the sweep then deletes the carve with its object
    node_id uuid,
    -- the node's own name for it: carves.carve_guid of the result that announced it
    carve_id text NOT NULL,
    request_id text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'receiving',
    block_count integer NOT NULL,
    block_size integer NOT NULL,
    carve_size bigint NOT NULL,
    received_blocks integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL,
    last_block_at timestamptz,
    -- when the state became 'stored', 'expired' or 'failed'
    ended_at timestamptz,
    client_version text NOT NULL DEFAULT '',
    -- of the live query whose result named the carve, and of that result
    live_query_id uuid,
    path text NOT NULL DEFAULT '',
    node_sha256 text,
    -- of the whole archive, by us
    sha256 text,
    format text,
    -- files in the archive, of which not all may be listed; null when it could not be listed
    file_count integer,
    -- why it ended as it did, why it could not be listed, why it is tried again
    problem text NOT NULL DEFAULT '',
    -- joining: not before, and how often it failed
    due_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    CONSTRAINT carves_pkey PRIMARY KEY (id),
    CONSTRAINT carves_node_id_carve_id_key UNIQUE (node_id, carve_id),
    CONSTRAINT carves_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE SET NULL,
    CONSTRAINT carves_live_query_id_fkey FOREIGN KEY (live_query_id) REFERENCES live_queries (id) ON DELETE SET NULL,
    CONSTRAINT carves_state_check CHECK (state IN ('receiving', 'received', 'stored', 'expired', 'failed')),
    CONSTRAINT carves_blocks_check CHECK (block_count > 0 AND block_size > 0 AND carve_size > 0)
);
CREATE INDEX carves_open_idx ON carves (state, due_at) WHERE state IN ('receiving', 'received');
CREATE INDEX carves_started_at_idx ON carves (started_at);
CREATE INDEX carves_live_query_id_idx ON carves (live_query_id);

-- What a block says of its sender before osquery 5.23. Only a hash is kept, so a repeated start gets a session of its own.
CREATE TABLE carve_sessions (
    session_sha256 bytea NOT NULL,
    carve_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT carve_sessions_pkey PRIMARY KEY (session_sha256),
    CONSTRAINT carve_sessions_carve_id_fkey FOREIGN KEY (carve_id) REFERENCES carves (id) ON DELETE CASCADE
);
CREATE INDEX carve_sessions_carve_id_idx ON carve_sessions (carve_id, created_at);

-- Blocks wait here until all are there, so that they may come in any order, repeatedly, and by way of several apis.
CREATE TABLE carve_blocks (
    carve_id uuid NOT NULL,
    block_id integer NOT NULL,
    -- by this a repeated block is compared: the api may not read what nodes handed over
    block_sha256 bytea NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT carve_blocks_pkey PRIMARY KEY (carve_id, block_id),
    CONSTRAINT carve_blocks_carve_id_fkey FOREIGN KEY (carve_id) REFERENCES carves (id) ON DELETE CASCADE
);
-- Mostly compressed already, and gone in a minute.
ALTER TABLE carve_blocks ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE carve_files (
    carve_id uuid NOT NULL,
    position integer NOT NULL,
    path text NOT NULL,
    size bigint NOT NULL,
    modified_at timestamptz,
    CONSTRAINT carve_files_pkey PRIMARY KEY (carve_id, position),
    CONSTRAINT carve_files_carve_id_fkey FOREIGN KEY (carve_id) REFERENCES carves (id) ON DELETE CASCADE
);

GRANT SELECT (id, node_id, carve_id, state, block_count, block_size, carve_size, received_blocks, started_at) ON carves TO ostiary_api;
GRANT INSERT (id, node_id, carve_id, request_id, block_count, block_size, carve_size, started_at, client_version) ON carves TO ostiary_api;
GRANT UPDATE (state, received_blocks, last_block_at, started_at, ended_at, problem, due_at) ON carves TO ostiary_api;
GRANT SELECT, INSERT, DELETE ON carve_sessions TO ostiary_api;
GRANT SELECT (carve_id, block_id, block_sha256), INSERT ON carve_blocks TO ostiary_api;
GRANT SELECT, UPDATE, DELETE ON carves TO ostiary_worker;
GRANT SELECT, DELETE ON carve_sessions, carve_blocks TO ostiary_worker;
GRANT SELECT, INSERT, DELETE ON carve_files TO ostiary_worker;
GRANT SELECT ON carves, carve_files TO ostiary_manager;
