-- Backups that were made and restored, present rows that a restore made old, and the certificates by which nodes know us.

-- A row for each backup that was finished; what is in it stands in its own manifest.
CREATE TABLE backups (
    id uuid NOT NULL,
    made_at timestamptz NOT NULL,
    file text NOT NULL,
    bytes bigint NOT NULL,
    -- encrypted by age, and not only kept from others by the file's mode
    encrypted boolean NOT NULL,
    CONSTRAINT backups_pkey PRIMARY KEY (id)
);
CREATE INDEX backups_made_at_idx ON backups (made_at);

CREATE TABLE restores (
    id uuid NOT NULL,
    restored_at timestamptz NOT NULL,
    backup_made_at timestamptz NOT NULL,
    -- by which every node was asked to send all rows again
    schedule_epoch numeric(20, 0) NOT NULL,
    CONSTRAINT restores_pkey PRIMARY KEY (id)
);
CREATE INDEX restores_restored_at_idx ON restores (restored_at);

-- The rows come from a backup: the node has told changes since that nobody knows any more. The next full set of a new epoch, or the
-- next snapshot, takes their place without being drift.
ALTER TABLE present_rows ADD COLUMN stale boolean NOT NULL DEFAULT false;
CREATE INDEX present_rows_stale_idx ON present_rows (node_id) WHERE stale;

-- Certificate chains that a listener serves or has served, and the bundles of roots that nodes are given.
CREATE TABLE served_chains (
    -- sha-256 over the DER of its certificates, in their order
    fingerprint bytea NOT NULL,
    -- 'api', 'api_next' (on trial), 'manager', 'ca' (what nodes trust) or 'ca_next' (the root to come)
    role text NOT NULL,
    -- PEM; certificates only
    chain text NOT NULL,
    first_served_at timestamptz NOT NULL,
    last_served_at timestamptz NOT NULL,
    CONSTRAINT served_chains_pkey PRIMARY KEY (fingerprint, role),
    CONSTRAINT served_chains_role_check CHECK (role IN ('api', 'api_next', 'manager', 'ca', 'ca_next'))
);
CREATE INDEX served_chains_last_served_at_idx ON served_chains (role, last_served_at);

-- Chains over which a node has made an authenticated request: so it trusts the root that they lead to.
CREATE TABLE node_chains (
    node_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    first_accepted_at timestamptz NOT NULL,
    last_accepted_at timestamptz NOT NULL,
    CONSTRAINT node_chains_pkey PRIMARY KEY (node_id, fingerprint),
    CONSTRAINT node_chains_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE
);
CREATE INDEX node_chains_fingerprint_idx ON node_chains (fingerprint);

-- Addresses from which the chain on trial was refused, with what the client said. Who it was is not known: the hand-shake failed.
CREATE TABLE refused_trials (
    address inet NOT NULL,
    fingerprint bytea NOT NULL,
    refusals integer NOT NULL,
    last_refused_at timestamptz NOT NULL,
    last_error text NOT NULL,
    CONSTRAINT refused_trials_pkey PRIMARY KEY (fingerprint, address)
);

-- Each threshold of a certificate's end is told once.
CREATE TABLE certificate_notes (
    fingerprint bytea NOT NULL,
    role text NOT NULL,
    threshold_days integer NOT NULL,
    noted_at timestamptz NOT NULL,
    CONSTRAINT certificate_notes_pkey PRIMARY KEY (fingerprint, role, threshold_days)
);

GRANT SELECT ON backups, restores TO ostiary_manager;
GRANT SELECT ON restores TO ostiary_worker;
GRANT SELECT, INSERT, UPDATE ON served_chains TO ostiary_api, ostiary_manager;
GRANT SELECT ON served_chains TO ostiary_worker;
GRANT SELECT, INSERT, UPDATE ON node_chains, refused_trials TO ostiary_api;
GRANT SELECT ON node_chains, refused_trials TO ostiary_manager, ostiary_worker;
GRANT DELETE ON refused_trials, served_chains TO ostiary_worker;
GRANT SELECT, INSERT, DELETE ON certificate_notes TO ostiary_worker;
