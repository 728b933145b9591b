-- Facts that hold until they end, and whether the api is there to be reported to.

-- What was noted and has not ended: each is noted once, and its end, too. No foreign key: what is about Ostiary itself has the nil id.
CREATE TABLE noted_facts (
    node_id uuid NOT NULL,
    name text NOT NULL,
    -- what on the node it is about; empty: the node
    entity text NOT NULL DEFAULT '',
    noted_at timestamptz NOT NULL,
    -- as they were told, for telling of the end
    columns json NOT NULL,
    CONSTRAINT noted_facts_pkey PRIMARY KEY (name, node_id, entity)
);

-- Since when some api has been there without a gap, and when one last said so. While none is, no node can check in, and none is offline.
CREATE TABLE api_uptime (
    id boolean NOT NULL DEFAULT true,
    up_since timestamptz NOT NULL,
    alive_at timestamptz NOT NULL,
    CONSTRAINT api_uptime_pkey PRIMARY KEY (id),
    CONSTRAINT api_uptime_id_check CHECK (id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON noted_facts TO ostiary_worker;
-- a merge of two nodes
GRANT SELECT, INSERT, DELETE ON noted_facts TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE ON api_uptime TO ostiary_api;
GRANT SELECT ON api_uptime TO ostiary_worker;
