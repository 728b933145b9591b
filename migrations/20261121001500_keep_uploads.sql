-- Uploads between the page that shows what they would do and the click that does it: one person's, for an hour, as they were read.
-- Never what was sent: node keys are hashed before, secrets are left out.
CREATE TABLE uploads (
    id uuid NOT NULL,
    -- who sent it; only they see it again
    user_id uuid NOT NULL,
    -- 'config' or 'node_keys'
    kind text NOT NULL,
    content json NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT uploads_pkey PRIMARY KEY (id),
    CONSTRAINT uploads_kind_check CHECK (kind IN ('config', 'node_keys')),
    CONSTRAINT uploads_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX uploads_user_id_idx ON uploads (user_id, created_at);

GRANT SELECT, INSERT, DELETE ON uploads TO ostiary_manager;

-- A node that came with its key from another manager has no platform until its first results; targets ask for it.
CREATE TRIGGER nodes_platform_bump AFTER UPDATE OF platform ON nodes
    FOR EACH ROW WHEN (OLD.platform = '' AND NEW.platform <> '') EXECUTE FUNCTION bump_generation('node_keys');
