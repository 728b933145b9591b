-- SQL of which it cannot be found out what it reads is kept from the nodes of every denial, and people are told why.
ALTER TABLE checked_sql
    -- a sentence; empty when the tables are known
    ADD COLUMN problem text NOT NULL DEFAULT '';

-- What is assembled for nodes depends on what is known of its SQL.
CREATE FUNCTION announce_checked_sql() RETURNS void
    LANGUAGE plpgsql
    SECURITY DEFINER
    SET search_path = public, pg_temp
AS $$
BEGIN
    UPDATE generations SET generation = generation + 1 WHERE name = 'configs';
    PERFORM pg_notify('ostiary_generation', 'configs');
END
$$;
REVOKE ALL ON FUNCTION announce_checked_sql() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION announce_checked_sql() TO ostiary_manager;

-- Objects of carves that the storage holds and the restored database does not know are deleted some days after a restore.
ALTER TABLE restores
    ADD COLUMN orphans_cleared_at timestamptz;
GRANT UPDATE (orphans_cleared_at) ON restores TO ostiary_worker;

-- Live queries are forgotten with their answers after `[worker] keep_live_queries_days`.
GRANT DELETE ON live_queries, live_query_tasks TO ostiary_worker;
