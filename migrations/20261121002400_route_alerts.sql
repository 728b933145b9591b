-- Where alerts go is decided by the rule's list and by what the destination itself wants; what is told is its own text or ours.
ALTER TABLE destinations
    -- the mildest severity that is told here
    ADD COLUMN min_severity text NOT NULL DEFAULT 'info',
    -- tag expression: of which nodes; empty: of all
    ADD COLUMN target text NOT NULL DEFAULT '',
    -- also of rules that do not name it?
    ADD COLUMN takes_all boolean NOT NULL DEFAULT false,
    -- also when a finding is acknowledged or resolved?
    ADD COLUMN tells_changes boolean NOT NULL DEFAULT true,
    -- alerts are gathered for so long and told in one message; 0: at once
    ADD COLUMN digest_minutes integer NOT NULL DEFAULT 0,
    -- minijinja, in a sandbox; empty: Ostiary's own
    ADD COLUMN title_template text NOT NULL DEFAULT '',
    ADD COLUMN text_template text NOT NULL DEFAULT '',
    ADD CONSTRAINT destinations_min_severity_check CHECK (min_severity IN ('info', 'low', 'medium', 'high', 'critical')),
    ADD CONSTRAINT destinations_digest_minutes_check CHECK (digest_minutes BETWEEN 0 AND 1440);

-- Destinations that fail: after some failures in a row nothing is tried for a while, then one delivery, as a probe. A table of its own,
-- since a change of `destinations` makes workers load rules anew.
CREATE TABLE destination_circuits (
    destination_id uuid NOT NULL,
    -- failures in a row, of whatever deliveries
    failures integer NOT NULL,
    failing_since timestamptz NOT NULL,
    -- nothing is tried before; null: not paused yet
    paused_until timestamptz,
    last_answer text NOT NULL,
    CONSTRAINT destination_circuits_pkey PRIMARY KEY (destination_id),
    CONSTRAINT destination_circuits_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE CASCADE
);

ALTER TABLE deliveries
    -- attempts that were made before somebody had it sent again
    ADD COLUMN forgiven_attempts integer NOT NULL DEFAULT 0,
    -- answers in a row that somebody over there may mend (401, 404, …)
    ADD COLUMN rejections integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT deliveries_state_check,
    -- 'skipped': the destination was disabled
    ADD CONSTRAINT deliveries_state_check CHECK (state IN ('waiting', 'delivered', 'dead', 'skipped'));
ALTER TABLE delivery_attempts
    -- what was sent, its beginning, without secrets
    ADD COLUMN body text NOT NULL DEFAULT '',
    DROP CONSTRAINT delivery_attempts_outcome_check,
    -- 'rejected': somebody over there may mend it
    ADD CONSTRAINT delivery_attempts_outcome_check CHECK (outcome IN ('delivered', 'retry', 'rejected', 'refused'));
CREATE INDEX deliveries_dead_idx ON deliveries (destination_id, created_at) WHERE state = 'dead';
CREATE INDEX delivery_attempts_started_at_idx ON delivery_attempts (started_at);

-- What a pager's webhooks told us already: a copy of one changes nothing. Forgotten when its time is long past.
CREATE TABLE pager_events (
    destination_id uuid NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT pager_events_pkey PRIMARY KEY (destination_id, event_id),
    CONSTRAINT pager_events_destination_id_fkey FOREIGN KEY (destination_id) REFERENCES destinations (id) ON DELETE CASCADE
);
CREATE INDEX pager_events_received_at_idx ON pager_events (received_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON destination_circuits TO ostiary_worker;
GRANT SELECT, DELETE ON destination_circuits TO ostiary_manager;
GRANT SELECT, INSERT ON pager_events TO ostiary_manager;
GRANT SELECT (received_at), DELETE ON pager_events TO ostiary_worker;
GRANT DELETE ON deliveries TO ostiary_worker;
