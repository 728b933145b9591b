-- Destinations: named, configured places for alerts. Their settings hold passwords and URLs and are sealed with a key that the
-- api does not have.
CREATE TABLE destinations (
    id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    settings_sealed bytea NOT NULL,
    -- what a list may show: "mail to security@example.com", never a secret
    summary text NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT destinations_pkey PRIMARY KEY (id),
    CONSTRAINT destinations_name_key UNIQUE (name)
);

CREATE TABLE rules (
    id uuid NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    -- doorman's QueryBuilder JSON
    conditions json NOT NULL,
    severity text NOT NULL,
    -- tag expression: the nodes it looks at
    scope text NOT NULL DEFAULT '',
    -- columns that tell one matter from another on a node; empty: all columns of the row
    entity_columns text[] NOT NULL DEFAULT '{}',
    -- does it also see rows of a baseline?
    on_baseline boolean NOT NULL DEFAULT false,
    -- events older than this on arrival are late and open nothing
    max_age_seconds integer NOT NULL DEFAULT 86400,
    runbook_url text NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    -- why it could not be compiled; such a rule is off
    broken_reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT rules_pkey PRIMARY KEY (id),
    CONSTRAINT rules_name_key UNIQUE (name),
    CONSTRAINT rules_severity_check CHECK (severity IN ('info', 'low', 'medium', 'high', 'critical')),
    CONSTRAINT rules_max_age_seconds_check CHECK (max_age_seconds > 0)
);

CREATE TABLE rule_destinations (
    rule_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    CONSTRAINT rule_destinations_pkey PRIMARY KEY (rule_id, destination_id),
    CONSTRAINT rule_destinations_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE,
    CONSTRAINT rule_destinations_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE CASCADE
);
CREATE INDEX rule_destinations_destination_id_idx ON rule_destinations (destination_id);

-- One open matter per (rule, node, entity). The names are copied: a finding outlives its rule and its node.
CREATE TABLE findings (
    id uuid NOT NULL,
    rule_id uuid,
    rule_name text NOT NULL,
    node_id uuid,
    node_name text NOT NULL,
    entity_hash bytea NOT NULL,
    entity text NOT NULL,
    severity text NOT NULL,
    state text NOT NULL,
    query_name text NOT NULL DEFAULT '',
    opened_at timestamptz NOT NULL,
    last_matched_at timestamptz NOT NULL,
    match_count bigint NOT NULL DEFAULT 1,
    acknowledged_at timestamptz,
    acknowledged_by uuid,
    resolved_at timestamptz,
    resolved_by uuid,
    -- the last batch that was counted, so that a batch counts once
    last_batch_id bigint,
    CONSTRAINT findings_pkey PRIMARY KEY (id),
    CONSTRAINT findings_state_check CHECK (state IN ('open', 'acknowledged', 'resolved')),
    CONSTRAINT findings_severity_check CHECK (severity IN ('info', 'low', 'medium', 'high', 'critical')),
    CONSTRAINT findings_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE SET NULL,
    CONSTRAINT findings_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE SET NULL
);
CREATE UNIQUE INDEX findings_open_key ON findings (rule_id, node_id, entity_hash) WHERE state <> 'resolved';
CREATE INDEX findings_node_id_idx ON findings (node_id, opened_at);
CREATE INDEX findings_state_idx ON findings (state, opened_at);

-- The rows that prove a finding, copied (events go with their partition); the first and the latest few are kept.
CREATE TABLE finding_matches (
    id bigint GENERATED ALWAYS AS IDENTITY,
    finding_id uuid NOT NULL,
    matched_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    query_name text NOT NULL,
    action text NOT NULL,
    columns json NOT NULL,
    batch_id bigint,
    CONSTRAINT finding_matches_pkey PRIMARY KEY (id),
    CONSTRAINT finding_matches_finding_id_fkey FOREIGN KEY (finding_id) REFERENCES findings (id) ON DELETE CASCADE
);
CREATE INDEX finding_matches_finding_id_idx ON finding_matches (finding_id, id);

-- What is told about a finding, fixed when it happens.
CREATE TABLE alerts (
    id uuid NOT NULL,
    finding_id uuid NOT NULL,
    kind text NOT NULL,
    -- all that a destination needs: rule, node, severity, entity, rows, links
    body json NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT alerts_pkey PRIMARY KEY (id),
    CONSTRAINT alerts_kind_check CHECK (kind IN ('opened', 'acknowledged', 'resolved')),
    CONSTRAINT alerts_finding_id_fkey FOREIGN KEY (finding_id) REFERENCES findings (id) ON DELETE CASCADE
);
CREATE INDEX alerts_finding_id_idx ON alerts (finding_id);

-- One attempt-history of sending one alert to one destination.
CREATE TABLE deliveries (
    id uuid NOT NULL,
    alert_id uuid NOT NULL,
    -- the alert's, copied: alerts of one finding go to a destination one after the other
    finding_id uuid NOT NULL,
    destination_id uuid,
    destination_name text NOT NULL,
    destination_kind text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    last_answer text NOT NULL DEFAULT '',
    CONSTRAINT deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT deliveries_state_check CHECK (state IN ('waiting', 'delivered', 'dead')),
    CONSTRAINT deliveries_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES alerts (id) ON DELETE CASCADE,
    CONSTRAINT deliveries_finding_id_fkey FOREIGN KEY (finding_id) REFERENCES findings (id) ON DELETE CASCADE,
    CONSTRAINT deliveries_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE SET NULL
);
CREATE INDEX deliveries_due_at_idx ON deliveries (due_at) WHERE state = 'waiting';
CREATE INDEX deliveries_waiting_idx ON deliveries (finding_id, destination_id, created_at, id) WHERE state = 'waiting';
CREATE INDEX deliveries_alert_id_idx ON deliveries (alert_id);
CREATE INDEX deliveries_finding_id_idx ON deliveries (finding_id);
CREATE INDEX deliveries_destination_id_idx ON deliveries (destination_id);
CREATE INDEX deliveries_created_at_idx ON deliveries (created_at);

CREATE TABLE delivery_attempts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    delivery_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    -- 'delivered', 'retry' (it may work later) or 'refused' (it never will)
    outcome text NOT NULL,
    answer text NOT NULL,
    CONSTRAINT delivery_attempts_pkey PRIMARY KEY (id),
    CONSTRAINT delivery_attempts_outcome_check CHECK (outcome IN ('delivered', 'retry', 'refused')),
    CONSTRAINT delivery_attempts_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES deliveries (id) ON DELETE CASCADE
);
CREATE INDEX delivery_attempts_delivery_id_idx ON delivery_attempts (delivery_id, id);

CREATE TRIGGER rules_bump AFTER INSERT OR DELETE OR
    UPDATE OF name, description, conditions, severity, scope, entity_columns, on_baseline, max_age_seconds, runbook_url, enabled ON rules
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('rules');
CREATE TRIGGER rule_destinations_bump AFTER INSERT OR UPDATE OR DELETE ON rule_destinations
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('rules');
CREATE TRIGGER destinations_bump AFTER INSERT OR UPDATE OR DELETE ON destinations
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('destinations');

GRANT SELECT, INSERT, UPDATE, DELETE ON destinations, rules, rule_destinations TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE ON findings, deliveries TO ostiary_manager;
GRANT SELECT, INSERT ON alerts TO ostiary_manager;
GRANT SELECT ON finding_matches, delivery_attempts TO ostiary_manager;
GRANT SELECT ON destinations, rules, rule_destinations TO ostiary_worker;
GRANT UPDATE (broken_reason) ON rules TO ostiary_worker;
GRANT SELECT, INSERT, UPDATE ON findings, alerts, deliveries TO ostiary_worker;
GRANT SELECT, INSERT, DELETE ON finding_matches, delivery_attempts TO ostiary_worker;
