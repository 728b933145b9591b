-- Sinks: where everything goes that nodes report, with findings and the audit log. Nothing is written per sink when a post is stored:
-- a sink reads what is there, in the order of its ids, up to an id below which every transaction has ended (`store::sinks::horizon`).

-- What happened to findings, once each. By triggers, so that whoever changes a finding need not know of sinks.
CREATE TABLE finding_changes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    finding_id uuid NOT NULL,
    node_id uuid,
    -- 'opened', or the state it came into
    change text NOT NULL,
    changed_at timestamptz NOT NULL,
    -- the finding as it was then
    finding json NOT NULL,
    CONSTRAINT finding_changes_pkey PRIMARY KEY (id)
);
CREATE INDEX finding_changes_changed_at_idx ON finding_changes (changed_at);
CREATE INDEX finding_changes_finding_id_idx ON finding_changes (finding_id);

CREATE FUNCTION note_finding_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO finding_changes (finding_id, node_id, change, changed_at, finding)
    VALUES (NEW.id, NEW.node_id, CASE WHEN TG_OP = 'INSERT' THEN 'opened' ELSE NEW.state END, now(),
        (to_jsonb(NEW) - 'entity_hash' - 'last_batch_id')::json);
    RETURN NULL;
END
$$;
CREATE TRIGGER findings_note_opened AFTER INSERT ON findings
    FOR EACH ROW EXECUTE FUNCTION note_finding_change();
CREATE TRIGGER findings_note_state AFTER UPDATE OF state ON findings
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION note_finding_change();

CREATE TABLE sinks (
    id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    -- sealed like those of destinations
    settings_sealed bytea NOT NULL,
    -- what a list may show, never a secret
    summary text NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    -- what is forwarded
    types text[] NOT NULL,
    -- patterns of query names with *; none: every query
    queries text[] NOT NULL DEFAULT '{}',
    -- tag expression: the nodes whose reports are forwarded
    target text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- how it goes, written by the worker: who runs it, and until when nobody else may
    lease_id uuid,
    leased_until timestamptz,
    -- the next attempt, after failures
    due_at timestamptz NOT NULL,
    -- failures in a row
    attempts integer NOT NULL DEFAULT 0,
    -- empty when the last attempt succeeded
    last_error text NOT NULL DEFAULT '',
    failed_at timestamptz,
    sent_at timestamptz,
    -- lines that were taken, and lines that were refused for good
    sent_lines bigint NOT NULL DEFAULT 0,
    refused_lines bigint NOT NULL DEFAULT 0,
    last_refusal text NOT NULL DEFAULT '',
    test_asked_at timestamptz,
    tested_at timestamptz,
    test_taken boolean,
    test_answer text NOT NULL DEFAULT '',
    CONSTRAINT sinks_pkey PRIMARY KEY (id),
    CONSTRAINT sinks_name_key UNIQUE (name),
    CONSTRAINT sinks_types_check CHECK (types <@ ARRAY['result', 'status', 'finding', 'audit'] AND cardinality(types) > 0)
);

-- Where a sink stands in each table that it reads: rows up to after_id are done, and of the next one the first after_row lines.
CREATE TABLE sink_cursors (
    sink_id uuid NOT NULL,
    source text NOT NULL,
    after_id bigint NOT NULL,
    after_row integer NOT NULL DEFAULT 0,
    -- lines that retention took before they were read
    lost bigint NOT NULL DEFAULT 0,
    CONSTRAINT sink_cursors_pkey PRIMARY KEY (sink_id, source),
    CONSTRAINT sink_cursors_source_check CHECK (source IN ('events', 'status_logs', 'finding_changes', 'audit_entries')),
    CONSTRAINT sink_cursors_sink_id_fkey FOREIGN KEY (sink_id) REFERENCES sinks (id) ON DELETE CASCADE
);

-- What is noted of a finding is kept as long as the finding; what a sink has not read by then is counted as lost to it.
CREATE FUNCTION forget_finding_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    WITH forgotten AS (
        DELETE FROM finding_changes USING gone WHERE finding_changes.finding_id = gone.id RETURNING finding_changes.id
    ), unread AS (
        SELECT c.sink_id, count(*) AS lines FROM sink_cursors c JOIN forgotten f ON f.id > c.after_id
        WHERE c.source = 'finding_changes' GROUP BY c.sink_id
    )
    UPDATE sink_cursors SET lost = lost + unread.lines FROM unread
    WHERE sink_cursors.sink_id = unread.sink_id AND sink_cursors.source = 'finding_changes';
    RETURN NULL;
END
$$;
CREATE TRIGGER findings_forget_changes AFTER DELETE ON findings REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION forget_finding_changes();

-- By id, which is how sinks read: 0.7 to 1 µs, 66 bytes of WAL and 23 bytes a tuple (measured, with or without sinks). BRIN costs
-- nothing, but a partition whose tail was never summarised would be read whole by every look of every sink.
CREATE INDEX events_id_idx ON events (id);
CREATE INDEX status_logs_id_idx ON status_logs (id);

-- As before, and what a sink has not read yet is counted as lost to it.
CREATE OR REPLACE FUNCTION drop_old_partitions() RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part record;
    oldest_pending timestamptz := (SELECT min(received_at) FROM pending WHERE kind = 'b');
BEGIN
    FOR part IN
        SELECT child.relname AS name, parent.relname AS parent, to_date(right(child.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        JOIN pg_class parent ON parent.oid = inhparent
        JOIN retention ON retention.table_name = parent.relname
        WHERE parent.relkind = 'p'
          AND to_date(right(child.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - retention.keep_days
        ORDER BY child.relname
    LOOP
        CONTINUE WHEN part.parent = 'log_batches' AND oldest_pending < ((part.day + 1)::timestamp AT TIME ZONE 'UTC');
        IF part.parent IN ('events', 'status_logs') THEN
            EXECUTE format('UPDATE sink_cursors SET lost = lost + unread.lines '
                'FROM (SELECT c.sink_id, sum(%s) AS lines FROM sink_cursors c JOIN %I p ON p.id > c.after_id '
                'WHERE c.source = %L GROUP BY c.sink_id) unread '
                'WHERE sink_cursors.sink_id = unread.sink_id AND source = %L',
                CASE part.parent WHEN 'events' THEN 'greatest(row_count, 1)' ELSE '1' END, part.name, part.parent, part.parent);
        END IF;
        EXECUTE format('DROP TABLE %I', part.name);
        RETURN NEXT part.name;
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON sinks, sink_cursors TO ostiary_manager;
GRANT SELECT ON sinks, sink_cursors, finding_changes, audit_entries TO ostiary_worker;
GRANT UPDATE (lease_id, leased_until, due_at, attempts, last_error, failed_at, sent_at, sent_lines, refused_lines, last_refusal,
    test_asked_at, tested_at, test_taken, test_answer) ON sinks TO ostiary_worker;
GRANT UPDATE (after_id, after_row) ON sink_cursors TO ostiary_worker;
GRANT SELECT ON finding_changes TO ostiary_manager;
-- a merge of two nodes
GRANT UPDATE (node_id) ON finding_changes TO ostiary_manager;
-- How far ids are given out.
GRANT SELECT ON SEQUENCE events_id_seq, status_logs_id_seq, finding_changes_id_seq, audit_entries_id_seq
    TO ostiary_worker, ostiary_manager;
