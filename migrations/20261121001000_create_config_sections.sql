-- Pieces of top-level keys of configs that have no table of their own (yara, views, …), and of keys that only osquery may know.
CREATE TABLE config_sections (
    id uuid NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    value json NOT NULL,
    target text NOT NULL DEFAULT '',
    priority integer NOT NULL DEFAULT 0,
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT config_sections_pkey PRIMARY KEY (id),
    CONSTRAINT config_sections_key_name_key UNIQUE (key, name),
    -- a member of these names in a config would be another part of it, or make osqueryd refuse it
    CONSTRAINT config_sections_key_check CHECK (key NOT IN ('options', 'schedule', 'packs', 'decorators', 'file_paths',
        'file_paths_query', 'file_accesses', 'exclude_paths', 'etag', 'error', 'node_invalid'))
);

-- What nodes of a target may still carry though it is no part of configs any more: osqueryd keeps it until its restart, so its
-- default is sent.
CREATE TABLE config_leftovers (
    -- 'option' or 'exclude_paths'
    kind text NOT NULL,
    name text NOT NULL,
    target text NOT NULL,
    since timestamptz NOT NULL,
    CONSTRAINT config_leftovers_pkey PRIMARY KEY (kind, name, target),
    CONSTRAINT config_leftovers_kind_check CHECK (kind IN ('option', 'exclude_paths'))
);

ALTER TABLE file_paths ADD COLUMN queries text[] NOT NULL DEFAULT '{}';
ALTER TABLE queries ADD COLUMN startup_priority integer,
    ADD CONSTRAINT queries_startup_priority_check CHECK (startup_priority >= 0);

CREATE TRIGGER config_sections_bump AFTER INSERT OR UPDATE OR DELETE ON config_sections
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');
CREATE TRIGGER config_leftovers_bump AFTER INSERT OR UPDATE OR DELETE ON config_leftovers
    FOR EACH STATEMENT EXECUTE FUNCTION bump_generation('configs');

GRANT SELECT ON config_sections, config_leftovers TO ostiary_api, ostiary_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON config_sections, config_leftovers TO ostiary_manager;
