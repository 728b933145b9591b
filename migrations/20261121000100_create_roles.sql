-- The three processes log in as three roles with least grants. They are created without a password, so nobody can log in by
-- password until the operator gives them one (docs: README, "Database"). A role belongs to the whole cluster, hence IF NOT EXISTS.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['ostiary_api', 'ostiary_manager', 'ostiary_worker'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I LOGIN', role_name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of the same cluster is being migrated at this moment
        END;
    END LOOP;
END
$$;

DO $$
BEGIN
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO ostiary_api, ostiary_manager, ostiary_worker', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO ostiary_api, ostiary_manager, ostiary_worker;

-- Generations: a number per kind of thing that processes keep in memory. Whoever changes such a thing bumps its generation in
-- the same transaction; caches compare numbers, and are told by NOTIFY when to look.
CREATE TABLE generations (
    name text NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    CONSTRAINT generations_pkey PRIMARY KEY (name)
);
INSERT INTO generations (name) VALUES ('configs'), ('node_keys'), ('rules'), ('live_queries'), ('destinations');

CREATE FUNCTION bump_generation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE generations SET generation = generation + 1 WHERE name = TG_ARGV[0];
    PERFORM pg_notify('ostiary_generation', TG_ARGV[0]);
    RETURN NULL;
END
$$;

GRANT SELECT ON generations TO ostiary_api, ostiary_manager, ostiary_worker;
