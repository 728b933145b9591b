ALTER TABLE live_queries
    -- SQL that must return a row on a node, else the query does not run there; only for osquery from 5.8 on
    ADD COLUMN discovery text NOT NULL DEFAULT '',
    -- where all tables of the discovery exist: an error in it would lose everything that is handed out with it
    ADD COLUMN discovery_platforms text[] NOT NULL DEFAULT '{}',
    -- from which version of osquery on they do
    ADD COLUMN discovery_since text NOT NULL DEFAULT '',
    -- osquery's tables that the query and its discovery read: not handed to nodes that are denied one of them
    ADD COLUMN tables text[] NOT NULL DEFAULT '{}',
    -- columns in the order of the SELECT, as far as known before anybody answers
    ADD COLUMN columns text[] NOT NULL DEFAULT '{}',
    -- '' or 'tables': the rows tell of tables that a node has
    ADD COLUMN purpose text NOT NULL DEFAULT '',
    ADD CONSTRAINT live_queries_purpose_check CHECK (purpose IN ('', 'tables'));

-- 'stuck': offered again and again, while the node kept asking, without an answer. 'skipped': its discovery returned nothing there.
ALTER TABLE live_query_tasks
    DROP CONSTRAINT live_query_tasks_state_check,
    ADD CONSTRAINT live_query_tasks_state_check CHECK (state IN ('offered', 'done', 'failed', 'expired', 'stuck', 'skipped'));
