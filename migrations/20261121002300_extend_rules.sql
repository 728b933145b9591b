-- What rules wait for, who owns them, how they were before, and what rules that count have seen.

ALTER TABLE rules
    -- the people to ask about it
    ADD COLUMN owner text NOT NULL DEFAULT '',
    ADD COLUMN watch text NOT NULL DEFAULT 'drift',
    ADD COLUMN watch_count integer,
    ADD COLUMN watch_seconds integer,
    -- it is new or changed, and has not yet looked at what is present; a rule on rarity opens nothing until it has
    ADD COLUMN to_study boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT rules_watch_check CHECK (watch IN ('drift', 'present', 'absence', 'times', 'nodes', 'first_seen', 'rare')),
    ADD CONSTRAINT rules_watch_count_check CHECK ((watch_count IS NOT NULL) = (watch IN ('times', 'nodes', 'rare')) AND watch_count > 0),
    ADD CONSTRAINT rules_watch_seconds_check CHECK ((watch_seconds IS NOT NULL) = (watch IN ('times', 'nodes')) AND watch_seconds > 0);

DROP TRIGGER rules_bump ON rules;
CREATE TRIGGER rules_bump AFTER INSERT OR DELETE OR
    UPDATE OF name, description, conditions, severity, scope, entity_columns, on_baseline, max_age_seconds, runbook_url, enabled, owner,
        watch, watch_count, watch_seconds, to_study ON rules
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('rules');

-- A rule after each change. The numbers of one rule have no gaps.
CREATE TABLE rule_revisions (
    rule_id uuid NOT NULL,
    number integer NOT NULL,
    made_at timestamptz NOT NULL,
    user_id uuid,
    -- copied: a revision outlives its user
    user_name text NOT NULL,
    -- what was done, in words
    what text NOT NULL,
    -- what an admin may set, as store::rule_edits::RuleValues
    content json NOT NULL,
    CONSTRAINT rule_revisions_pkey PRIMARY KEY (rule_id, number),
    CONSTRAINT rule_revisions_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE,
    CONSTRAINT rule_revisions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
);
CREATE INDEX rule_revisions_user_id_idx ON rule_revisions (user_id);

-- Values that rules on rarity and on counts of nodes have seen. Whoever changes the nodes of a value holds its row, so that counts are
-- exact: the second of two nodes waits for the first.
CREATE TABLE rule_values (
    rule_id uuid NOT NULL,
    -- the entity's, shortened: 16 bytes
    value_hash bytea NOT NULL,
    -- it has been on so many nodes that it is rare no more, whatever happens to them
    is_common boolean NOT NULL DEFAULT false,
    CONSTRAINT rule_values_pkey PRIMARY KEY (rule_id, value_hash),
    CONSTRAINT rule_values_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE
);
-- No foreign key to nodes: the upkeep removes those of nodes that are gone.
CREATE TABLE rule_value_nodes (
    rule_id uuid NOT NULL,
    value_hash bytea NOT NULL,
    node_id uuid NOT NULL,
    -- by the node's clock, clamped
    seen_at timestamptz NOT NULL,
    CONSTRAINT rule_value_nodes_pkey PRIMARY KEY (rule_id, value_hash, node_id),
    CONSTRAINT rule_value_nodes_value_fkey FOREIGN KEY (rule_id, value_hash) REFERENCES rule_values (rule_id, value_hash) ON DELETE CASCADE
);
CREATE INDEX rule_value_nodes_node_id_idx ON rule_value_nodes (node_id);

-- When rows matched a rule on so-many-times, the latest only: as many as the rule wants. The node's lock keeps them exact.
CREATE TABLE rule_times (
    rule_id uuid NOT NULL,
    node_id uuid NOT NULL,
    entity_hash bytea NOT NULL,
    times timestamptz[] NOT NULL,
    latest_at timestamptz NOT NULL,
    CONSTRAINT rule_times_pkey PRIMARY KEY (rule_id, node_id, entity_hash),
    CONSTRAINT rule_times_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE
);
CREATE INDEX rule_times_latest_at_idx ON rule_times (latest_at);

GRANT SELECT, INSERT ON rule_revisions TO ostiary_manager;
-- a merge of two nodes makes one of what both have
GRANT SELECT, INSERT, UPDATE, DELETE ON rule_value_nodes, rule_times TO ostiary_manager;
GRANT SELECT, UPDATE, DELETE ON rule_values TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE, DELETE ON rule_values, rule_value_nodes, rule_times TO ostiary_worker;
GRANT UPDATE (to_study) ON rules TO ostiary_worker;
