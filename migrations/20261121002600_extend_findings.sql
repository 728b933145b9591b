-- The whole life of a finding, silences, and findings of the fleet.

-- Who is not to be told for a while. What is named must all be true of a finding: its rule, its node, the tags of its node.
CREATE TABLE silences (
    id uuid NOT NULL,
    rule_id uuid,
    node_id uuid,
    -- tag expression; empty: any node
    target text NOT NULL DEFAULT '',
    reason text NOT NULL,
    ends_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    created_by uuid,
    -- copied: a silence outlives its user
    created_by_name text NOT NULL,
    -- ended before its time
    ended_at timestamptz,
    ended_by_name text NOT NULL DEFAULT '',
    CONSTRAINT silences_pkey PRIMARY KEY (id),
    CONSTRAINT silences_what_check CHECK (rule_id IS NOT NULL OR node_id IS NOT NULL OR target <> ''),
    CONSTRAINT silences_reason_check CHECK (reason <> ''),
    -- with its rule or node a silence goes: without them it would silence more than was meant
    CONSTRAINT silences_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE,
    CONSTRAINT silences_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes (id) ON DELETE CASCADE,
    CONSTRAINT silences_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE SET NULL
);
CREATE INDEX silences_ends_at_idx ON silences (ends_at);
CREATE INDEX silences_rule_id_idx ON silences (rule_id);
CREATE INDEX silences_node_id_idx ON silences (node_id);
CREATE INDEX silences_created_by_idx ON silences (created_by);

ALTER TABLE findings
    -- of the fleet, not of one node: it takes in the findings that one rule opens on very many nodes
    ADD COLUMN on_fleet boolean NOT NULL DEFAULT false,
    -- the finding of the fleet that took this one in; nobody is told of it alone
    ADD COLUMN fleet_finding_id uuid,
    -- taken in, but told alone all the same, since few nodes have its entity
    ADD COLUMN stands_out_at timestamptz,
    -- the last one about the same matter, which was resolved before this one was opened
    ADD COLUMN former_id uuid,
    -- it was opened silently
    ADD COLUMN silence_id uuid,
    ADD CONSTRAINT findings_fleet_finding_id_fkey FOREIGN KEY (fleet_finding_id) REFERENCES findings (id) ON DELETE SET NULL,
    ADD CONSTRAINT findings_former_id_fkey FOREIGN KEY (former_id) REFERENCES findings (id) ON DELETE SET NULL,
    ADD CONSTRAINT findings_silence_id_fkey FOREIGN KEY (silence_id) REFERENCES silences (id) ON DELETE SET NULL,
    ADD CONSTRAINT findings_on_fleet_check CHECK (NOT on_fleet OR (node_id IS NULL AND fleet_finding_id IS NULL));
CREATE UNIQUE INDEX findings_fleet_key ON findings (rule_id) WHERE on_fleet AND state <> 'resolved';
CREATE INDEX findings_matter_idx ON findings (rule_id, node_id, entity_hash, opened_at);
CREATE INDEX findings_rule_id_idx ON findings (rule_id, opened_at);
CREATE INDEX findings_fleet_finding_id_idx ON findings (fleet_finding_id) WHERE fleet_finding_id IS NOT NULL;
CREATE INDEX findings_former_id_idx ON findings (former_id) WHERE former_id IS NOT NULL;
CREATE INDEX findings_silence_id_idx ON findings (silence_id) WHERE silence_id IS NOT NULL;
CREATE INDEX findings_resolved_at_idx ON findings (resolved_at) WHERE state = 'resolved';

-- What the change left behind or brought beside the row that matched: of a row that came the one that went, and the other way round.
ALTER TABLE finding_matches ADD COLUMN counterpart json;

-- The timeline: what happened to a finding, in order. Ends of deliveries stand in deliveries and are joined in.
CREATE TABLE finding_entries (
    id bigint GENERATED ALWAYS AS IDENTITY,
    finding_id uuid NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    -- who; none: the rule itself
    user_id uuid,
    -- copied: an entry outlives its user
    user_name text NOT NULL DEFAULT '',
    -- a comment or a reason
    text text NOT NULL DEFAULT '',
    -- of a run of further matches: how many
    match_count bigint NOT NULL DEFAULT 0,
    -- of what ended by itself: the row that went
    columns json,
    CONSTRAINT finding_entries_pkey PRIMARY KEY (id),
    CONSTRAINT finding_entries_kind_check CHECK (kind IN ('opened', 'matched', 'acknowledged', 'commented', 'resolved', 'reopened',
        'silenced', 'unsilenced', 'taken_in', 'stood_out', 'calm', 'told')),
    CONSTRAINT finding_entries_finding_id_fkey FOREIGN KEY (finding_id) REFERENCES findings (id) ON DELETE CASCADE,
    CONSTRAINT finding_entries_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
);
CREATE INDEX finding_entries_finding_id_idx ON finding_entries (finding_id, id);
CREATE INDEX finding_entries_user_id_idx ON finding_entries (user_id);

-- Rules that open findings on very many nodes just now. Whoever opens a finding holds its rule's row, so that all see the same.
CREATE TABLE storms (
    rule_id uuid NOT NULL,
    finding_id uuid NOT NULL,
    began_at timestamptz NOT NULL,
    last_opened_at timestamptz NOT NULL,
    CONSTRAINT storms_pkey PRIMARY KEY (rule_id),
    CONSTRAINT storms_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES rules (id) ON DELETE CASCADE,
    CONSTRAINT storms_finding_id_fkey FOREIGN KEY (finding_id) REFERENCES findings (id) ON DELETE CASCADE
);
CREATE INDEX storms_finding_id_idx ON storms (finding_id);

-- What was known of findings until now.
INSERT INTO finding_entries (finding_id, at, kind) SELECT id, opened_at, 'opened' FROM findings;
INSERT INTO finding_entries (finding_id, at, kind, match_count)
    SELECT id, last_matched_at, 'matched', match_count - 1 FROM findings WHERE match_count > 1;
INSERT INTO finding_entries (finding_id, at, kind, user_id, user_name)
    SELECT f.id, acknowledged_at, 'acknowledged', u.id, coalesce(u.name, '')
    FROM findings f LEFT JOIN users u ON u.id = acknowledged_by WHERE acknowledged_at IS NOT NULL;
INSERT INTO finding_entries (finding_id, at, kind, user_id, user_name)
    SELECT f.id, resolved_at, 'resolved', u.id, coalesce(u.name, '')
    FROM findings f LEFT JOIN users u ON u.id = resolved_by WHERE resolved_at IS NOT NULL;

GRANT SELECT, INSERT ON silences TO ostiary_manager;
GRANT UPDATE (ends_at, ended_at, ended_by_name) ON silences TO ostiary_manager;
GRANT SELECT, DELETE ON silences TO ostiary_worker;
GRANT SELECT, INSERT ON finding_entries TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE ON finding_entries TO ostiary_worker;
GRANT DELETE ON findings TO ostiary_worker;
GRANT SELECT ON storms TO ostiary_manager;
GRANT SELECT, INSERT, UPDATE, DELETE ON storms TO ostiary_worker;
