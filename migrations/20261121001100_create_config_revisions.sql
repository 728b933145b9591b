-- What was configured when: every change makes a revision, the whole set of config objects as it was after it.
CREATE TABLE config_revisions (
    -- counted without gaps under the lock of config changes
    number bigint NOT NULL,
    made_at timestamptz NOT NULL,
    -- null: a command, or nobody knows; no foreign key, since a revision outlives the user
    user_id uuid,
    user_name text NOT NULL,
    what text NOT NULL,
    -- sha-256 of the objects
    content_hash bytea NOT NULL,
    objects bytea NOT NULL,
    CONSTRAINT config_revisions_pkey PRIMARY KEY (number)
);

-- A change that goes out in stages. Nodes whose position is above the threshold get the config of the base.
CREATE TABLE rollouts (
    id uuid NOT NULL,
    state text NOT NULL,
    base_revision bigint NOT NULL,
    revision bigint NOT NULL,
    -- what configs were made of before the change; emptied at the end
    base_parts bytea NOT NULL,
    -- the stages in percent, and which is under way (from 0)
    shares smallint[] NOT NULL,
    stage smallint NOT NULL DEFAULT 0,
    threshold bigint NOT NULL,
    user_name text NOT NULL,
    started_at timestamptz NOT NULL,
    stage_started_at timestamptz NOT NULL,
    ended_at timestamptz,
    -- why it was halted
    reason text NOT NULL DEFAULT '',
    CONSTRAINT rollouts_pkey PRIMARY KEY (id),
    CONSTRAINT rollouts_state_check CHECK (state IN ('running', 'halted', 'finished', 'returned')),
    CONSTRAINT rollouts_ended_at_check CHECK ((state IN ('running', 'halted')) = (ended_at IS NULL)),
    CONSTRAINT rollouts_base_revision_fkey FOREIGN KEY (base_revision) REFERENCES config_revisions (number)
);
-- One at a time.
CREATE UNIQUE INDEX rollouts_active_key ON rollouts ((true)) WHERE ended_at IS NULL;
CREATE INDEX rollouts_base_revision_idx ON rollouts (base_revision);

-- Nodes of the stages so far, and what they were like before.
CREATE TABLE rollout_nodes (
    rollout_id uuid NOT NULL,
    node_id uuid NOT NULL,
    stage smallint NOT NULL,
    -- it was checking in when its stage began, so it is waited for
    counted boolean NOT NULL,
    denylisted_before text[] NOT NULL DEFAULT '{}',
    -- error lines in the hour before
    errors_before integer NOT NULL DEFAULT 0,
    -- when it was first seen to have fetched the new config
    fetched_at timestamptz,
    trouble text NOT NULL DEFAULT '',
    CONSTRAINT rollout_nodes_pkey PRIMARY KEY (rollout_id, node_id),
    CONSTRAINT rollout_nodes_rollout_id_fkey FOREIGN KEY (rollout_id) REFERENCES rollouts (id) ON DELETE CASCADE,
    CONSTRAINT rollout_nodes_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
);
CREATE INDEX rollout_nodes_node_id_idx ON rollout_nodes (node_id);

CREATE TRIGGER rollouts_bump AFTER INSERT OR DELETE OR UPDATE OF state, threshold, base_parts ON rollouts
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');

-- The api needs to know who gets which config, and nothing else.
GRANT SELECT (id, threshold, base_parts, ended_at) ON rollouts TO ostiary_api;
GRANT SELECT, INSERT, DELETE ON config_revisions TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE, DELETE ON rollouts, rollout_nodes TO ostiary_manager;
GRANT SELECT, DELETE ON config_revisions TO ostiary_worker;
GRANT SELECT, UPDATE, DELETE ON rollouts TO ostiary_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON rollout_nodes TO ostiary_worker;
