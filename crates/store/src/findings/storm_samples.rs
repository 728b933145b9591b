//! What a finding of the fleet has taken in: its nodes and entities, in short.

use ostiary_domain::ids::FindingId;

use crate::{Conn, Result};

/// What a finding of the fleet has taken in, in short.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Names of its nodes, the first `limit`.
    pub nodes: Vec<String>,
    /// On how many nodes its findings are.
    pub node_count: i64,
    /// The most frequent entities, each with its number of nodes.
    pub entities: Vec<(String, i64)>,
}

/// What a finding of the fleet has taken in, in short: names of at most `limit` nodes, and the five most frequent entities.
///
/// # Errors
/// Postgres failed.
pub async fn sample(conn: &mut Conn, id: FindingId, limit: i64) -> Result<Sample> {
    let nodes = sqlx::query_scalar!(
        "SELECT DISTINCT node_name FROM findings WHERE fleet_finding_id = $1 ORDER BY 1 LIMIT $2",
        id.0,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let node_count = sqlx::query_scalar!(
        r#"SELECT count(DISTINCT node_id) AS "n!" FROM findings WHERE fleet_finding_id = $1"#,
        id.0
    )
    .fetch_one(&mut *conn)
    .await?;
    let entities = list_entities(conn, id, 5).await?;
    Ok(Sample {
        nodes,
        node_count,
        entities: entities
            .into_iter()
            .map(|one| (one.entity, one.nodes))
            .collect(),
    })
}

/// An entity inside of a finding of the fleet.
#[derive(Debug, Clone, serde::Serialize)]
pub struct EntityCount {
    /// What it is, for people.
    pub entity: String,
    /// On how many nodes.
    pub nodes: i64,
}

/// The entities of a finding of the fleet, the most frequent first.
///
/// # Errors
/// Postgres failed.
pub async fn list_entities(conn: &mut Conn, id: FindingId, limit: i64) -> Result<Vec<EntityCount>> {
    Ok(sqlx::query_as!(
        EntityCount,
        r#"
        SELECT min(entity) AS "entity!", count(DISTINCT node_id) AS "nodes!"
        FROM findings WHERE fleet_finding_id = $1 GROUP BY entity_hash ORDER BY 2 DESC, 1 LIMIT $2
        "#,
        id.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}
