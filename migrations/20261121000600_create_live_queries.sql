CREATE TABLE live_queries (
    id uuid NOT NULL,
    -- goes over the wire as the query's id: short, without dots, unique
    wire_id text NOT NULL,
    sql text NOT NULL,
    description text NOT NULL DEFAULT '',
    -- tag expression; used with node_ids: the union of both
    target text NOT NULL DEFAULT '',
    target_all boolean NOT NULL DEFAULT false,
    node_ids uuid[] NOT NULL DEFAULT '{}',
    created_by uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    cancelled_at timestamptz,
    CONSTRAINT live_queries_pkey PRIMARY KEY (id),
    CONSTRAINT live_queries_wire_id_key UNIQUE (wire_id),
    CONSTRAINT live_queries_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE SET NULL
);
CREATE INDEX live_queries_expires_at_idx ON live_queries (expires_at);

-- A node's share of a live query. The row is made when the query is handed out or answered ('new' is the absence of a row).
CREATE TABLE live_query_tasks (
    live_query_id uuid NOT NULL,
    node_id uuid NOT NULL,
    state text NOT NULL,
    offered_at timestamptz,
    offers integer NOT NULL DEFAULT 0,
    finished_at timestamptz,
    status integer,
    message text NOT NULL DEFAULT '',
    stats json,
    row_count integer NOT NULL DEFAULT 0,
    rows text COMPRESSION lz4 NOT NULL DEFAULT '[]',
    CONSTRAINT live_query_tasks_pkey PRIMARY KEY (live_query_id, node_id),
    CONSTRAINT live_query_tasks_state_check CHECK (state IN ('offered', 'done', 'failed', 'expired')),
    CONSTRAINT live_query_tasks_live_query_id_fkey FOREIGN KEY (live_query_id) REFERENCES live_queries (id) ON DELETE CASCADE,
    CONSTRAINT live_query_tasks_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
);
CREATE INDEX live_query_tasks_node_id_idx ON live_query_tasks (node_id, live_query_id);

CREATE TRIGGER live_queries_bump AFTER INSERT OR UPDATE OR DELETE ON live_queries
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('live_queries');

GRANT SELECT ON live_queries TO ostiary_api;
GRANT SELECT, INSERT, UPDATE ON live_query_tasks TO ostiary_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON live_queries TO ostiary_manager;
GRANT SELECT, DELETE ON live_query_tasks TO ostiary_manager;
GRANT SELECT ON live_queries TO ostiary_worker;
GRANT SELECT, UPDATE, INSERT ON live_query_tasks TO ostiary_worker;
