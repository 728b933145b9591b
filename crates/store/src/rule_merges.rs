//! What a merge of two nodes does to what rules have counted, so that the two count as one from then on.
//!
//! A value of either node is a value of the one that is left; of a value that both have, the later sighting stays. Present rows of a
//! query that both ran are those of the node that was seen last (`node_merges`): the other's values that went with such rows and that
//! nothing present holds any more are forgotten, or no removal would ever take them away.

use std::collections::{BTreeMap, HashSet};

use ostiary_domain::finding::Entity;
use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::Columns;
use ostiary_domain::present::RowSet;
use uuid::Uuid;

use crate::rule_values::short;
use crate::{Conn, Error, Result, present_rows};

/// The two nodes of a merge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) gone: NodeId,
    pub(crate) kept: NodeId,
    /// The one whose present rows give way where both have some.
    pub(crate) loser: NodeId,
}

/// Makes the counts of two nodes those of one. The transaction holds the locks of both, and their present rows have not moved yet.
pub(crate) async fn merge(conn: &mut Conn, pair: Pair) -> Result<()> {
    let both = [pair.gone.0, pair.kept.0];
    // Whoever changes the nodes of a value holds its row; in the order of `rule_values::see`.
    sqlx::query!(
        r#"
        SELECT FROM rule_values v
        WHERE (rule_id, value_hash) IN (SELECT n.rule_id, n.value_hash FROM rule_value_nodes n WHERE n.node_id = ANY ($1))
        ORDER BY rule_id, value_hash FOR UPDATE
        "#,
        &both
    )
    .execute(&mut *conn)
    .await?;
    forget_dropped(conn, pair).await?;
    sqlx::query!(
        r#"
        INSERT INTO rule_value_nodes AS k (rule_id, value_hash, node_id, seen_at)
        SELECT rule_id, value_hash, $2, seen_at FROM rule_value_nodes WHERE node_id = $1
        ON CONFLICT (rule_id, value_hash, node_id) DO UPDATE SET seen_at = greatest(k.seen_at, excluded.seen_at)
        "#,
        pair.gone.0,
        pair.kept.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM rule_value_nodes WHERE node_id = $1",
        pair.gone.0
    )
    .execute(&mut *conn)
    .await?;
    move_times(conn, pair).await
}

/// As many of the latest times of both as each rule wants.
async fn move_times(conn: &mut Conn, pair: Pair) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO rule_times AS k (rule_id, node_id, entity_hash, times, latest_at)
        SELECT rule_id, $2, entity_hash, times, latest_at FROM rule_times WHERE node_id = $1
        ON CONFLICT (rule_id, node_id, entity_hash) DO UPDATE SET
            times = ARRAY(SELECT one FROM (
                SELECT one FROM unnest(k.times || excluded.times) AS one ORDER BY one DESC
                LIMIT (SELECT watch_count FROM rules WHERE id = k.rule_id)) AS latest ORDER BY one),
            latest_at = greatest(k.latest_at, excluded.latest_at)
        "#,
        pair.gone.0,
        pair.kept.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM rule_times WHERE node_id = $1", pair.gone.0)
        .execute(conn)
        .await?;
    Ok(())
}

async fn forget_dropped(conn: &mut Conn, pair: Pair) -> Result<()> {
    let mut rules: BTreeMap<Vec<String>, Vec<Uuid>> = BTreeMap::new();
    let found = sqlx::query!(
        r#"
        SELECT id, entity_columns FROM rules r WHERE watch IN ('first_seen', 'rare')
            AND EXISTS (SELECT FROM rule_value_nodes n WHERE n.rule_id = r.id AND n.node_id = $1)
        "#,
        pair.loser.0
    )
    .fetch_all(&mut *conn)
    .await?;
    for rule in found {
        rules.entry(rule.entity_columns).or_default().push(rule.id);
    }
    if rules.is_empty() {
        return Ok(());
    }
    let (dropped, held) = split_rows(conn, pair).await?;
    for (columns, rules) in rules {
        // Of a row that no rule matched there is no value, so conditions need not be asked again.
        let mut values = hashes(&dropped, &columns)?;
        let kept = hashes(&held, &columns)?;
        values.retain(|value| !kept.contains(value));
        let values: Vec<&[u8]> = values.iter().map(short).collect();
        sqlx::query!(
            "DELETE FROM rule_value_nodes WHERE node_id = $1 AND rule_id = ANY ($2) AND value_hash = ANY ($3)",
            pair.loser.0,
            &rules,
            &values as &[&[u8]]
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Present rows that the merge drops, and those that hold after it.
async fn split_rows(conn: &mut Conn, pair: Pair) -> Result<(Vec<RowSet>, Vec<RowSet>)> {
    let found = sqlx::query!(
        r#"
        SELECT p.node_id, p.query_name_id, EXISTS (SELECT FROM present_rows o
            WHERE o.node_id <> p.node_id AND o.node_id = ANY ($1) AND o.query_name_id = p.query_name_id) AS "shared!"
        FROM present_rows p WHERE p.node_id = ANY ($1)
        "#,
        &[pair.gone.0, pair.kept.0]
    )
    .fetch_all(&mut *conn)
    .await?;
    let pairs: Vec<(NodeId, i32)> = found
        .iter()
        .map(|row| (NodeId(row.node_id), row.query_name_id))
        .collect();
    let shared: HashSet<i32> = found
        .iter()
        .filter(|row| row.shared)
        .map(|row| row.query_name_id)
        .collect();
    let stored = present_rows::find(conn, &pairs).await?;
    let (dropped, held): (Vec<_>, Vec<_>) = stored
        .into_iter()
        .partition(|one| one.node_id == pair.loser && shared.contains(&one.query_name_id));
    let rows = |stored: Vec<present_rows::Stored>| {
        let sets = stored.into_iter().map(|one| one.present.rows);
        sets.collect()
    };
    Ok((rows(dropped), rows(held)))
}

fn hashes(sets: &[RowSet], entity_columns: &[String]) -> Result<HashSet<[u8; 32]>> {
    sets.iter()
        .flat_map(RowSet::iter)
        .map(|row| {
            let columns: Columns<'_> = serde_json::from_str(row)
                .map_err(|error| Error::Corrupt(format!("present_rows: {error}")))?;
            Ok(Entity::of(entity_columns, &columns).hash)
        })
        .collect()
}
