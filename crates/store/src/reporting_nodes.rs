//! What the worker has to know of the nodes whose posts it works on.

use std::collections::HashMap;

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::rule::NodeView;
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
    /// What it told of itself when it enrolled, in the same form.
    pub host_details: Map<String, Value>,
}

impl ReportingNode {
    /// The node as rules see it.
    #[must_use]
    pub fn view(&self) -> NodeView<'_> {
        NodeView {
            facts: &self.facts,
            vitals: Some(&self.vitals),
            host_details: Some(&self.host_details),
        }
    }

    /// All nodes together, for matters that are not of one node: they have the id of [`OSTIARY`].
    #[must_use]
    pub fn fleet() -> Self {
        Self::nobody("The fleet")
    }

    /// Ostiary itself, as rules see it: a node without tags.
    fn ostiary() -> Self {
        Self::nobody("Ostiary")
    }

    fn nobody(name: &str) -> Self {
        let name = name.to_owned();
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
            host_details: Map::new(),
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
            platform, osquery_version, instance_id, vitals, host_details,
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
            let (vitals, host_details) = (object(row.vitals), object(row.host_details));
            (
                id,
                ReportingNode {
                    id,
                    facts,
                    instance_id: row.instance_id,
                    vitals,
                    host_details,
                },
            )
        })
        .chain(own)
        .collect())
}

/// What a JSON column holds, if it is an object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
