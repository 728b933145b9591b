-- When a node came in: what it fetched or said before that moment says nothing about the change.
ALTER TABLE rollout_nodes ADD COLUMN added_at timestamptz NOT NULL DEFAULT now();
UPDATE rollout_nodes n SET added_at = r.stage_started_at FROM rollouts r WHERE r.id = n.rollout_id;
