-- Sign-in, sessions, tokens and the audit log of the manager.
CREATE TABLE sessions (
    -- sha-256 of the cookie's value
    id_sha256 bytea NOT NULL,
    user_id uuid,
    data json NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (id_sha256),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);
CREATE INDEX sessions_user_id_idx ON sessions (user_id);

-- Failed sign-ins per user name and per address, in a window.
CREATE TABLE sign_in_attempts (
    subject text NOT NULL,
    failures integer NOT NULL,
    window_started_at timestamptz NOT NULL,
    CONSTRAINT sign_in_attempts_pkey PRIMARY KEY (subject)
);

CREATE TABLE api_tokens (
    id uuid NOT NULL,
    name text NOT NULL,
    token_sha256 bytea NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT api_tokens_token_sha256_key UNIQUE (token_sha256),
    CONSTRAINT api_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE audit_entries (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    -- copied: an entry outlives its user
    user_id uuid,
    user_name text NOT NULL,
    -- 'packs.update', 'session.sign_in', ...
    action text NOT NULL,
    subject_kind text NOT NULL DEFAULT '',
    subject_id text NOT NULL DEFAULT '',
    subject_name text NOT NULL DEFAULT '',
    before json,
    after json,
    ip inet,
    CONSTRAINT audit_entries_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_entries_at_idx ON audit_entries (at);

-- The manager may add to the audit log and read it; nobody but the owner may change what stands in it.
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions, sign_in_attempts, api_tokens TO ostiary_manager;
GRANT SELECT, INSERT ON audit_entries TO ostiary_manager;
