-- Who a node is: conflicts that people settle, merged nodes, enrollments that wait for an approval, tags that differ in case only.

-- Tags are compared without regard to case everywhere. Of twins the older one stays, with the nodes and secrets of both.
CREATE TEMPORARY TABLE tag_twins ON COMMIT DROP AS
SELECT id, name, first_value(id) OVER twins AS kept_id, first_value(name) OVER twins AS kept_name
FROM tags
WINDOW twins AS (PARTITION BY lower(name) ORDER BY created_at, id);

INSERT INTO node_tags (node_id, tag_id)
SELECT DISTINCT nt.node_id, t.kept_id
FROM node_tags nt JOIN tag_twins t ON t.id = nt.tag_id
WHERE t.id <> t.kept_id
ON CONFLICT ON CONSTRAINT node_tags_pkey DO NOTHING;

UPDATE tags k SET description = d.description
FROM (SELECT t.kept_id, string_agg(g.description, E'\n' ORDER BY g.created_at, g.id) AS description
    FROM tag_twins t JOIN tags g ON g.id = t.id
    WHERE g.description <> ''
    GROUP BY t.kept_id
    HAVING bool_or(t.id <> t.kept_id)) d
WHERE k.id = d.kept_id;

UPDATE enroll_secrets s SET tags = ARRAY(
    SELECT kept FROM (
        SELECT coalesce(t.kept_name, given.name) AS kept, min(given.position) AS position
        FROM unnest(s.tags) WITH ORDINALITY AS given (name, position)
        LEFT JOIN tag_twins t ON t.name = given.name
        GROUP BY 1) names
    ORDER BY position)
WHERE EXISTS (SELECT FROM tag_twins t WHERE t.id <> t.kept_id AND t.name = ANY (s.tags));

DELETE FROM tags WHERE id IN (SELECT id FROM tag_twins WHERE id <> kept_id);

-- tags_name_key stays for the release before this one, which names it in ON CONFLICT.
CREATE UNIQUE INDEX tags_lower_name_key ON tags (lower(name));

-- Does an enrollment by this secret need an admin? 'reestablished': only where it would take over a silent node's identity.
-- (require_approval meant that until now, and is read by nobody any more.)
ALTER TABLE enroll_secrets ADD COLUMN approval text NOT NULL DEFAULT 'none',
    ADD CONSTRAINT enroll_secrets_approval_check CHECK (approval IN ('none', 'reestablished', 'all'));
UPDATE enroll_secrets SET approval = 'reestablished' WHERE require_approval;

-- A node that waits for an approval, or was refused one, is also switched off (disabled_at): nothing counts on it.
ALTER TABLE nodes
    ADD COLUMN approval text,
    -- the silent node whose identity it claims, if it claims one
    ADD COLUMN approval_of uuid,
    ADD CONSTRAINT nodes_approval_check CHECK (approval IN ('waiting', 'refused') AND disabled_at IS NOT NULL OR approval IS NULL),
    ADD CONSTRAINT nodes_approval_of_fkey FOREIGN KEY (approval_of) REFERENCES nodes (id) ON DELETE SET NULL;
CREATE INDEX nodes_approval_idx ON nodes (approval, enrolled_at) WHERE approval IS NOT NULL;
CREATE INDEX nodes_approval_of_idx ON nodes (approval_of) WHERE approval_of IS NOT NULL;
CREATE INDEX nodes_conflict_with_idx ON nodes (conflict_with) WHERE conflict_with IS NOT NULL;

-- Two nodes that look like one machine. nodes.conflict_with says the same while nobody has decided.
CREATE TABLE node_conflicts (
    -- the newcomer
    node_id uuid NOT NULL,
    -- the node that was there
    other_id uuid NOT NULL,
    -- what both have: 'hardware', 'database' (instance id), 'host_identifier'
    reason text NOT NULL,
    noted_at timestamptz NOT NULL,
    -- an admin said that they are two machines: the pair is not flagged again
    kept_apart_at timestamptz,
    kept_apart_by uuid,
    CONSTRAINT node_conflicts_pkey PRIMARY KEY (node_id, other_id),
    CONSTRAINT node_conflicts_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT node_conflicts_other_id_fkey FOREIGN KEY (other_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT node_conflicts_kept_apart_by_fkey FOREIGN KEY (kept_apart_by) REFERENCES users (id) ON DELETE SET NULL,
    CONSTRAINT node_conflicts_reason_check CHECK (reason IN ('hardware', 'database', 'host_identifier')),
    CONSTRAINT node_conflicts_two_check CHECK (node_id <> other_id)
);
CREATE UNIQUE INDEX node_conflicts_pair_key ON node_conflicts (least(node_id, other_id), greatest(node_id, other_id));
CREATE INDEX node_conflicts_other_id_idx ON node_conflicts (other_id);
CREATE INDEX node_conflicts_kept_apart_by_idx ON node_conflicts (kept_apart_by);
INSERT INTO node_conflicts (node_id, other_id, reason, noted_at)
SELECT n.id, o.id, 'hardware', n.first_enrolled_at FROM nodes n JOIN nodes o ON o.id = n.conflict_with AND o.id <> n.id;
UPDATE nodes n SET conflict_with = NULL
WHERE conflict_with IS NOT NULL AND NOT EXISTS (SELECT FROM nodes o WHERE o.id = n.conflict_with AND o.id <> n.id);

-- Nodes that were merged into others. What has no foreign key (events, status logs, unreadable data) follows in slices; posts that
-- a process took for the old node a moment later are worked for the one that is left.
CREATE TABLE node_merges (
    gone_id uuid NOT NULL,
    gone_name text NOT NULL,
    kept_id uuid NOT NULL,
    merged_at timestamptz NOT NULL,
    history_moved_at timestamptz,
    CONSTRAINT node_merges_pkey PRIMARY KEY (gone_id),
    CONSTRAINT node_merges_kept_id_fkey FOREIGN KEY (kept_id) REFERENCES nodes (id) ON DELETE CASCADE
);
CREATE INDEX node_merges_kept_id_idx ON node_merges (kept_id);
CREATE INDEX node_merges_unmoved_idx ON node_merges (merged_at) WHERE history_moved_at IS NULL;

-- Which nodes a generation of 'node_keys' was about, so that an api need not read all of them anew. The nil UUID says "all".
CREATE TABLE node_changes (
    generation bigint NOT NULL,
    node_id uuid NOT NULL,
    CONSTRAINT node_changes_pkey PRIMARY KEY (generation, node_id)
);

CREATE FUNCTION note_changed_nodes(ids uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    present bigint;
BEGIN
    IF coalesce(cardinality(ids), 0) = 0 THEN
        RETURN;
    END IF;
    UPDATE generations SET generation = generation + 1 WHERE name = 'node_keys' RETURNING generation INTO present;
    IF cardinality(ids) > 2000 THEN
        ids := ARRAY['00000000-0000-0000-0000-000000000000'::uuid];
    END IF;
    INSERT INTO node_changes (generation, node_id) SELECT DISTINCT present, id FROM unnest(ids) AS changed (id);
    DELETE FROM node_changes WHERE generation < present - 2000;
    PERFORM pg_notify('ostiary_generation', 'node_keys');
END
$$;

-- A node without a key is in nobody's memory: a first enrollment need not queue up for the generation's row.
CREATE FUNCTION note_changed_tags() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM note_changed_nodes(ARRAY(
        SELECT DISTINCT c.node_id FROM changed c WHERE EXISTS (SELECT FROM node_keys k WHERE k.node_id = c.node_id)));
    RETURN NULL;
END
$$;

CREATE FUNCTION note_changed_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM note_changed_nodes(ARRAY[OLD.node_id, NEW.node_id]);
    ELSE
        PERFORM note_changed_nodes(ARRAY[OLD.node_id]);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION note_changed_node() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM note_changed_nodes(ARRAY[NEW.id]);
    RETURN NULL;
END
$$;

DROP TRIGGER node_keys_bump ON node_keys;
DROP TRIGGER nodes_bump ON nodes;
DROP TRIGGER node_tags_bump ON node_tags;
CREATE TRIGGER node_keys_updated AFTER UPDATE ON node_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at OR OLD.node_id <> NEW.node_id) EXECUTE FUNCTION note_changed_key();
CREATE TRIGGER node_keys_deleted AFTER DELETE ON node_keys FOR EACH ROW EXECUTE FUNCTION note_changed_key();
CREATE TRIGGER nodes_updated AFTER UPDATE ON nodes FOR EACH ROW
    WHEN (OLD.disabled_at IS DISTINCT FROM NEW.disabled_at OR OLD.approval IS DISTINCT FROM NEW.approval)
    EXECUTE FUNCTION note_changed_node();
CREATE TRIGGER node_tags_inserted AFTER INSERT ON node_tags REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_tags();
CREATE TRIGGER node_tags_deleted AFTER DELETE ON node_tags REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_tags();

REVOKE ALL ON FUNCTION note_changed_nodes(uuid[]), note_changed_tags(), note_changed_key(), note_changed_node() FROM PUBLIC;

GRANT SELECT (approval) ON enroll_secrets TO ostiary_api;
GRANT SELECT ON node_changes TO ostiary_api;
GRANT INSERT ON node_conflicts TO ostiary_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON node_conflicts TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE ON node_merges TO ostiary_manager;
GRANT SELECT, UPDATE (history_moved_at) ON node_merges TO ostiary_worker;

-- Moves the oldest part of a merged node's history to the node that it became; gives the number of tuples. Nobody may change events
-- otherwise, and this changes nothing but whose they are.
CREATE FUNCTION move_history(gone uuid, span interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    kept uuid := (SELECT kept_id FROM node_merges WHERE gone_id = gone);
    oldest timestamptz;
    moved bigint;
    total bigint := 0;
BEGIN
    IF kept IS NULL THEN
        RETURN 0;
    END IF;
    SELECT min(received_at) INTO oldest FROM events WHERE node_id = gone;
    UPDATE events SET node_id = kept WHERE node_id = gone AND received_at >= oldest AND received_at < oldest + span;
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    SELECT min(received_at) INTO oldest FROM status_logs WHERE node_id = gone;
    UPDATE status_logs SET node_id = kept WHERE node_id = gone AND received_at >= oldest AND received_at < oldest + span;
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    UPDATE unreadable SET node_id = kept
    WHERE id IN (SELECT id FROM unreadable WHERE node_id = gone ORDER BY received_at LIMIT 500);
    GET DIAGNOSTICS moved = ROW_COUNT;
    -- A later migration makes this table.
    INSERT INTO unreadable_dropped AS dropped (node_id, items, bytes, last_at)
    SELECT kept, items, bytes, last_at FROM unreadable_dropped WHERE node_id = gone
    ON CONFLICT ON CONSTRAINT unreadable_dropped_pkey DO UPDATE SET items = dropped.items + excluded.items,
        bytes = dropped.bytes + excluded.bytes, last_at = greatest(dropped.last_at, excluded.last_at);
    DELETE FROM unreadable_dropped WHERE node_id = gone;
    RETURN total + moved;
END
$$;
REVOKE ALL ON FUNCTION move_history(uuid, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION move_history(uuid, interval) TO ostiary_worker;

-- Gives everything that belongs to one node to another, except events, status logs and unreadable data (move_history). The node itself
-- stays, bare. What is kept once per node is that of the living one. Tables that refer to nodes are found by their foreign keys: one
-- that a later migration adds is taken along, too; of two rows that cannot stand side by side the kept node's stays. Gives the number
-- of rows by table.
CREATE FUNCTION merge_nodes(gone uuid, kept uuid, gone_is_living boolean) RETURNS TABLE (table_name text, rows_moved bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    loser uuid := CASE WHEN gone_is_living THEN kept ELSE gone END;
    winner uuid := CASE WHEN gone_is_living THEN gone ELSE kept END;
    child record;
    place tid;
BEGIN
    IF gone = kept THEN
        RAISE EXCEPTION 'a node cannot be merged into itself';
    END IF;
    DELETE FROM node_checkins WHERE node_id = loser AND EXISTS (SELECT FROM node_checkins WHERE node_id = winner);
    DELETE FROM node_configs WHERE node_id = loser AND EXISTS (SELECT FROM node_configs WHERE node_id = winner);
    DELETE FROM present_rows p
    WHERE node_id = loser AND EXISTS (SELECT FROM present_rows o WHERE o.node_id = winner AND o.query_name_id = p.query_name_id);
    DELETE FROM node_conflicts WHERE node_id IN (gone, kept) AND other_id IN (gone, kept);
    UPDATE live_queries SET node_ids = array_replace(node_ids, gone, kept) WHERE gone = ANY (node_ids);

    FOR child IN
        SELECT c.conrelid::regclass AS name, a.attname AS column_name
        FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.confrelid = 'nodes'::regclass AND cardinality(c.conkey) = 1 AND c.conparentid = 0
        ORDER BY 1, 2
    LOOP
        table_name := child.name::text;
        rows_moved := 0;
        FOR place IN EXECUTE format('SELECT ctid FROM %s WHERE %I = $1', child.name, child.column_name) USING gone LOOP
            BEGIN
                EXECUTE format('UPDATE %s SET %I = $2 WHERE ctid = $1', child.name, child.column_name) USING place, kept;
                rows_moved := rows_moved + 1;
            EXCEPTION WHEN unique_violation OR check_violation THEN
                NULL;
            END;
        END LOOP;
        RETURN NEXT;
    END LOOP;

    table_name := 'present_rows';
    UPDATE present_rows SET node_id = kept WHERE node_id = gone;
    GET DIAGNOSTICS rows_moved = ROW_COUNT;
    RETURN NEXT;
    table_name := 'post_fingerprints';
    UPDATE post_fingerprints SET node_id = kept WHERE node_id = gone;
    GET DIAGNOSTICS rows_moved = ROW_COUNT;
    RETURN NEXT;
    table_name := 'pending';
    UPDATE pending SET node_id = kept WHERE node_id = gone;
    GET DIAGNOSTICS rows_moved = ROW_COUNT;
    RETURN NEXT;
END
$$;
REVOKE ALL ON FUNCTION merge_nodes(uuid, uuid, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION merge_nodes(uuid, uuid, boolean) TO ostiary_manager;
