//! What the worker has to know of the nodes whose posts it works on.

use std::collections::HashMap;

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Conn, Result};

/// Stands for Ostiary itself where a fact needs a node: no node has this id.
pub const OSTIARY: NodeId = NodeId(Uuid::nil());

/// A node that reports.
#[derive(Debug, Clone)]
pub struct ReportingNode {
    /// Which.
    pub id: NodeId,
    /// What targets and rules look at.
    pub facts: NodeFacts,
    /// `osquery_info.instance_id` as last known, `""` when unknown.
    pub instance_id: String,
    /// The latest rows of the built-in queries.
    pub vitals: Map<String, Value>,
}

impl ReportingNode {
    /// Ostiary itself, as rules see it: a node without tags.
    fn ostiary() -> Self {
        let name = "Ostiary".to_owned();
        Self {
            id: OSTIARY,
            facts: NodeFacts {
                host_identifier: name.clone(),
                hostname: name.clone(),
                name,
                platform: String::new(),
                osquery_version: String::new(),
                tags: Vec::new(),
            },
            instance_id: String::new(),
            vitals: Map::new(),
        }
    }
}

/// Finds nodes, and keeps them from being deleted until the transaction ends. [`OSTIARY`] is found, too.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, ids: &[NodeId]) -> Result<HashMap<NodeId, ReportingNode>> {
    let mut ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let rows = sqlx::query!(
        r#"
        SELECT id, host_identifier, hostname, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            platform, osquery_version, instance_id, vitals,
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name) AS "tags!"
        FROM nodes n WHERE id = ANY($1)
        ORDER BY id
        FOR KEY SHARE OF n
        "#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let own = ids
        .contains(&OSTIARY.0)
        .then(|| (OSTIARY, ReportingNode::ostiary()));
    Ok(rows
        .into_iter()
        .map(|row| {
            let id = NodeId(row.id);
            let facts = NodeFacts {
                host_identifier: row.host_identifier,
                hostname: row.hostname,
                name: row.name,
                platform: row.platform,
                osquery_version: row.osquery_version,
                tags: row.tags,
            };
            let vitals = match row.vitals {
                Value::Object(vitals) => vitals,
                _ => Map::new(),
            };
            (
                id,
                ReportingNode {
                    id,
                    facts,
                    instance_id: row.instance_id,
                    vitals,
                },
            )
        })
        .chain(own)
        .collect())
}
