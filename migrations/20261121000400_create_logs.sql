-- What nodes report. The three large tables are partitioned by the day (UTC) on which we received the post; their partitions are
-- made and dropped by the functions at the end, which alone own that right.

CREATE TABLE log_batches (
    id bigint GENERATED ALWAYS AS IDENTITY,
    node_id uuid NOT NULL,
    -- 'r'esult, 's'tatus, or 'x' for a log type that we do not know
    log_type "char" NOT NULL,
    received_at timestamptz NOT NULL,
    -- of the User-Agent; decides how old formats are read
    client_version text NOT NULL DEFAULT '',
    -- the raw `data` of the post, zstd
    data bytea NOT NULL
) PARTITION BY RANGE (received_at);
ALTER TABLE log_batches ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX log_batches_id_idx ON log_batches (id);

-- The work not yet done: one row per stored post and per fact. Truth of the queue; Redis only rings.
CREATE TABLE pending (
    id bigint GENERATED ALWAYS AS IDENTITY,
    node_id uuid NOT NULL,
    -- 'b' a log batch, 'f' a fact
    kind "char" NOT NULL,
    batch_id bigint,
    received_at timestamptz NOT NULL,
    -- kind 'f': {"name": "enrolled", "columns": {...}}
    fact json,
    due_at timestamptz NOT NULL,
    -- how often it has failed
    attempts smallint NOT NULL DEFAULT 0,
    -- how many processes began it and have not said how that ended: those that are still there died on it
    claims smallint NOT NULL DEFAULT 0,
    last_error text,
    CONSTRAINT pending_pkey PRIMARY KEY (id),
    CONSTRAINT pending_kind_check CHECK ((kind = 'b' AND batch_id IS NOT NULL) OR (kind = 'f' AND fact IS NOT NULL))
);
CREATE INDEX pending_due_at_idx ON pending (due_at, id);
CREATE INDEX pending_node_id_idx ON pending (node_id, id);

-- Fingerprints of the lines of the last posts per (node, log type): 8 bytes a line, one tuple a post.
CREATE TABLE post_fingerprints (
    node_id uuid NOT NULL,
    log_type "char" NOT NULL,
    batch_id bigint NOT NULL,
    received_at timestamptz NOT NULL,
    fingerprints bytea NOT NULL,
    CONSTRAINT post_fingerprints_pkey PRIMARY KEY (node_id, log_type, batch_id)
);
ALTER TABLE post_fingerprints ALTER COLUMN fingerprints SET STORAGE EXTERNAL;
CREATE INDEX post_fingerprints_received_at_idx ON post_fingerprints (received_at);

-- A dictionary, never a foreign key to a query that may be deleted.
CREATE TABLE query_names (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    first_node_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT query_names_pkey PRIMARY KEY (id),
    CONSTRAINT query_names_name_key UNIQUE (name)
);
CREATE INDEX query_names_first_node_id_idx ON query_names (first_node_id);

-- One tuple per (node, query, execution, post). `rows` is [{"action": "...", "columns": {...}, "decorations": {...}?}, ...], packed by
-- `store::packed` (a byte that names the codec, then zstd of the JSON text): 88 bytes a row with all indexes, where lz4 by Postgres
-- needs 158, since it looks only at tuples over 2 kB. The price: SQL cannot look into rows.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY,
    node_id uuid NOT NULL,
    query_name_id integer NOT NULL,
    batch_id bigint NOT NULL,
    received_at timestamptz NOT NULL,
    -- the node's time, clamped to received_at when it lies in the future
    occurred_at timestamptz NOT NULL,
    -- the node's time as it was sent
    unix_time bigint NOT NULL,
    epoch numeric(20, 0) NOT NULL DEFAULT 0,
    counter bigint NOT NULL DEFAULT 0,
    snapshot boolean NOT NULL DEFAULT false,
    -- part of a full set: what was there already, not a change
    baseline boolean NOT NULL DEFAULT false,
    -- older on arrival than a rule may page for
    late boolean NOT NULL DEFAULT false,
    -- bytes that were no UTF-8 were replaced
    lossy boolean NOT NULL DEFAULT false,
    -- bits: 1 a row was added, 2 removed, 4 a snapshot, 8 anything else
    actions smallint NOT NULL DEFAULT 0,
    row_count integer NOT NULL,
    rows bytea NOT NULL
) PARTITION BY RANGE (received_at);
-- Packed already: Postgres need not try. Partitions inherit this, but not toast_tuple_target (see ensure_partition).
ALTER TABLE events ALTER COLUMN rows SET STORAGE EXTERNAL;
-- By time and not by id: the latest ones are found in the newest partition, and posts share their times, which keeps them small.
CREATE INDEX events_node_id_idx ON events (node_id, received_at);
CREATE INDEX events_query_name_id_idx ON events (query_name_id, received_at);

-- What holds now: one multiset per (node, query).
CREATE TABLE present_rows (
    node_id uuid NOT NULL,
    query_name_id integer NOT NULL,
    epoch numeric(20, 0) NOT NULL DEFAULT 0,
    counter bigint NOT NULL DEFAULT 0,
    unix_time bigint NOT NULL DEFAULT 0,
    instance_id text NOT NULL DEFAULT '',
    snapshot boolean NOT NULL DEFAULT false,
    -- false while rows are only known in part (no full set that can be trusted has come yet)
    complete boolean NOT NULL DEFAULT false,
    -- when the latest part came of a full set that may go on in the next post
    unsettled_at timestamptz,
    content_hash bytea NOT NULL,
    row_count integer NOT NULL,
    -- state of the algorithm beside the rows (an unfinished full set, ...)
    state json,
    -- packed like events.rows
    rows bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    CONSTRAINT present_rows_pkey PRIMARY KEY (node_id, query_name_id)
) WITH (fillfactor = 70, toast_tuple_target = 256);
ALTER TABLE present_rows ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE INDEX present_rows_query_name_id_idx ON present_rows (query_name_id);
CREATE INDEX present_rows_unsettled_idx ON present_rows (node_id) WHERE unsettled_at IS NOT NULL;

CREATE TABLE status_logs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    node_id uuid NOT NULL,
    batch_id bigint NOT NULL,
    received_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    -- 0 info, 1 warning, 2 error, 3 fatal
    severity smallint NOT NULL,
    line integer NOT NULL DEFAULT 0,
    filename text NOT NULL DEFAULT '',
    message text NOT NULL,
    version text NOT NULL DEFAULT ''
) PARTITION BY RANGE (received_at);
CREATE INDEX status_logs_node_id_idx ON status_logs (node_id, id);

-- What a node sent that could not be understood, kept with the reason.
CREATE TABLE unreadable (
    id uuid NOT NULL,
    node_id uuid NOT NULL,
    batch_id bigint,
    log_type text NOT NULL DEFAULT '',
    received_at timestamptz NOT NULL,
    reason text NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT unreadable_pkey PRIMARY KEY (id)
);
CREATE INDEX unreadable_node_id_idx ON unreadable (node_id, received_at);
CREATE INDEX unreadable_received_at_idx ON unreadable (received_at);

-- How long rows are kept.
CREATE TABLE retention (
    table_name text NOT NULL,
    keep_days integer NOT NULL,
    CONSTRAINT retention_pkey PRIMARY KEY (table_name),
    CONSTRAINT retention_table_name_check CHECK (table_name IN ('log_batches', 'events', 'status_logs', 'unreadable')),
    CONSTRAINT retention_keep_days_check CHECK (keep_days BETWEEN 1 AND 3650)
);
INSERT INTO retention (table_name, keep_days) VALUES ('log_batches', 3), ('events', 90), ('status_logs', 30), ('unreadable', 30);

-- Makes the partition of one day. Anybody of ours may call it: a dead worker must not stop ingest.
CREATE FUNCTION ensure_partition(parent text, day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    partition_name text := parent || '_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF parent NOT IN ('log_batches', 'events', 'status_logs') THEN
        RAISE EXCEPTION 'no partitioned table %', parent;
    END IF;
    -- Posts that waited long for a worker still need the days on which they came.
    IF day > current_date + 31 OR day < current_date - (SELECT greatest(31, keep_days) FROM retention WHERE table_name = parent) THEN
        RAISE EXCEPTION 'no partition for %: too far from today', day;
    END IF;
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_partition'));
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', partition_name, parent,
        to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
    IF parent = 'events' THEN
        EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', partition_name);
    END IF;
END
$$;

-- Drops the partitions whose days are past their retention, except log batches that still wait. Returns their names.
CREATE FUNCTION drop_old_partitions() RETURNS SETOF text
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
        EXECUTE format('DROP TABLE %I', part.name);
        RETURN NEXT part.name;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION ensure_partition(text, date), drop_old_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partition(text, date) TO ostiary_api, ostiary_worker, ostiary_manager;
GRANT EXECUTE ON FUNCTION drop_old_partitions() TO ostiary_worker;

SELECT ensure_partition(parent, current_date + ahead)
FROM unnest(ARRAY['log_batches', 'events', 'status_logs']) AS parent, generate_series(-1, 7) AS ahead;

GRANT SELECT, INSERT ON log_batches, pending TO ostiary_api;
GRANT INSERT ON unreadable TO ostiary_api;
GRANT SELECT, INSERT ON query_names TO ostiary_worker;
GRANT SELECT ON log_batches TO ostiary_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON pending, post_fingerprints, present_rows TO ostiary_worker;
GRANT SELECT, INSERT ON events, status_logs TO ostiary_worker;
GRANT SELECT, INSERT, DELETE ON unreadable TO ostiary_worker;
GRANT SELECT ON retention TO ostiary_worker;
GRANT SELECT ON log_batches, query_names, events, present_rows, status_logs, unreadable, pending TO ostiary_manager;
GRANT DELETE ON present_rows, unreadable TO ostiary_manager;
GRANT SELECT, DELETE ON post_fingerprints TO ostiary_manager;
GRANT SELECT, UPDATE ON retention TO ostiary_manager;
GRANT INSERT ON pending TO ostiary_manager;
