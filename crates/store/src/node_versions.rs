//! Nodes by what their version of osquery can do.

use ostiary_domain::osquery::OsqueryVersion;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// From this version on osqueryd says in the header `Authorization: NodeKey` who it is (`remote/transports/tls.cpp::decorateRequest`).
const SAYS_BY_HEADER: &str = "5.23.0";

/// A node and its version.
#[derive(Debug, Clone, Serialize)]
pub struct VersionedNode {
    /// Which.
    pub id: Uuid,
    /// Display name, else host name, else host identifier.
    pub name: String,
    /// Of the osqueryd, as its latest request or its enrollment told; empty if neither did.
    pub version: String,
}

/// Nodes that do not say by header who they are, or may not: the version is older, or unknown. In name order.
///
/// # Errors
/// Postgres failed.
pub async fn list_without_header(conn: &mut Conn) -> Result<Vec<VersionedNode>> {
    let nodes = sqlx::query_as!(
        VersionedNode,
        r#"
        SELECT n.id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            coalesce(nullif(c.client_version, ''), n.osquery_version) AS "version!"
        FROM nodes n LEFT JOIN node_checkins c ON c.node_id = n.id
        WHERE n.disabled_at IS NULL
        ORDER BY 2, 1
        "#
    )
    .fetch_all(conn)
    .await?;
    let first: OsqueryVersion = SAYS_BY_HEADER.parse().expect("it is a version");
    Ok(nodes
        .into_iter()
        .filter(|node| {
            node.version
                .parse::<OsqueryVersion>()
                .map_or(true, |version| version < first)
        })
        .collect())
}
