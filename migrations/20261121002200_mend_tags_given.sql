-- 001900 noted every tag of a secret as given to all nodes that had come by it. Where a node names the tags that it wants, it was given
-- some of them only, and would never get the others. What a node does not carry, and nobody has taken from it, was not given.
DELETE FROM tags_given g
USING tags t
WHERE lower(t.name) = g.name
    AND NOT EXISTS (SELECT FROM node_tags c WHERE c.node_id = g.node_id AND c.tag_id = t.id)
    AND NOT EXISTS (
        SELECT FROM audit_entries a
        WHERE a.action = 'nodes.remove_tag' AND lower(a.after ->> 'tag') = g.name
            AND (a.subject_id = g.node_id::text
                OR a.subject_id IN (SELECT m.gone_id::text FROM node_merges m WHERE m.kept_id = g.node_id)))
    -- it may have gone from all nodes, and come again
    AND NOT EXISTS (SELECT FROM audit_entries a WHERE a.action = 'tags.delete' AND lower(a.subject_name) = g.name);

-- A tag that gets another name is given under that name from then on.
GRANT SELECT, INSERT, DELETE ON tags_given TO ostiary_manager;

-- A live query is offered again though the node carves, if what it carves is known to be another query's.
GRANT SELECT (live_query_id) ON carves TO ostiary_api;
