-- Carves: who joins one, when somebody last looked who asked for it, by which key a session began, where in the archive a file lies.
ALTER TABLE carves
    -- of the worker that joins it; whoever finds another one here has lost it
    ADD COLUMN lease uuid,
    -- when results of live queries were last searched for it
    ADD COLUMN looked_at timestamptz;

ALTER TABLE carve_sessions
    -- a session ends with its key; null for those of before, which end with the last key of their node
    ADD COLUMN key_sha256 bytea;

ALTER TABLE carve_files
    -- in bytes, in the unpacked archive; null when the entry is no plain file, or was listed before this was noted
    ADD COLUMN data_at bigint;

-- Tags that enroll secrets gave to nodes, in lower case. Each is given once: what people took away stays away.
CREATE TABLE tags_given (
    node_id uuid NOT NULL,
    name text NOT NULL,
    CONSTRAINT tags_given_pkey PRIMARY KEY (node_id, name),
    CONSTRAINT tags_given_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
);
INSERT INTO tags_given (node_id, name)
SELECT DISTINCT n.id, lower(given)
FROM nodes n JOIN enroll_secrets s ON s.id = n.enroll_secret_id CROSS JOIN unnest(s.tags) AS given;

GRANT SELECT, INSERT ON tags_given TO ostiary_api;
