-- What could not be understood is bounded per node, whoever keeps it: a node that sends nothing else must not fill the disk.

CREATE TABLE unreadable_bounds (
    only_row boolean NOT NULL DEFAULT true,
    items_per_node integer NOT NULL,
    bytes_per_node bigint NOT NULL,
    CONSTRAINT unreadable_bounds_pkey PRIMARY KEY (only_row),
    CONSTRAINT unreadable_bounds_only_row_check CHECK (only_row),
    CONSTRAINT unreadable_bounds_items_per_node_check CHECK (items_per_node >= 1),
    CONSTRAINT unreadable_bounds_bytes_per_node_check CHECK (bytes_per_node >= 1)
);
INSERT INTO unreadable_bounds (items_per_node, bytes_per_node) VALUES (1000, 33554432);

-- What had to make room. No foreign key: nothing that is kept of a node may fail because the node is being deleted.
CREATE TABLE unreadable_dropped (
    node_id uuid NOT NULL,
    items bigint NOT NULL,
    bytes bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT unreadable_dropped_pkey PRIMARY KEY (node_id)
);

-- The oldest go first. The roles that insert may not delete, hence SECURITY DEFINER. Nodes in one order, for two of these may run at once.
CREATE FUNCTION bound_unreadable() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_node uuid;
BEGIN
    FOR of_node IN SELECT DISTINCT node_id FROM inserted ORDER BY node_id
    LOOP
        WITH ranked AS (
            SELECT id, row_number() OVER newest AS place, sum(octet_length(data)) OVER newest AS bytes
            FROM unreadable WHERE node_id = of_node
            WINDOW newest AS (ORDER BY received_at DESC, id DESC)
        ), gone AS (
            DELETE FROM unreadable USING ranked, unreadable_bounds
            WHERE unreadable.id = ranked.id AND (place > items_per_node OR bytes > bytes_per_node)
            RETURNING octet_length(data) AS bytes
        )
        INSERT INTO unreadable_dropped AS dropped (node_id, items, bytes, last_at)
        SELECT of_node, count(*), sum(bytes), now() FROM gone HAVING count(*) > 0
        ON CONFLICT ON CONSTRAINT unreadable_dropped_pkey DO UPDATE
        SET items = dropped.items + excluded.items, bytes = dropped.bytes + excluded.bytes, last_at = excluded.last_at;
    END LOOP;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION bound_unreadable() FROM PUBLIC;

CREATE TRIGGER unreadable_bound AFTER INSERT ON unreadable
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION bound_unreadable();

GRANT SELECT ON unreadable_bounds, unreadable_dropped TO ostiary_manager;
GRANT UPDATE ON unreadable_bounds TO ostiary_manager;
GRANT SELECT, DELETE ON unreadable_dropped TO ostiary_worker;
