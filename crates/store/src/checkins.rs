//! When nodes were last heard of. Written for many nodes in one statement, every few seconds; never on a request's path.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use ostiary_domain::ids::NodeId;

use crate::{Conn, Result};

/// What is new about one node since the last time. Absent times keep what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkin {
    /// Address of the latest request.
    pub ip: Option<IpAddr>,
    /// Latest request of another kind than those below, or of a node that was refused it because it waits for an approval.
    pub seen_at: Option<DateTime<Utc>>,
    /// Latest `/enroll`.
    pub enroll_at: Option<DateTime<Utc>>,
    /// Latest `/config`.
    pub config_at: Option<DateTime<Utc>>,
    /// Latest `/log`.
    pub log_at: Option<DateTime<Utc>>,
    /// Latest `/distributed/read`.
    pub distributed_read_at: Option<DateTime<Utc>>,
    /// Latest `/distributed/write`.
    pub distributed_write_at: Option<DateTime<Utc>>,
    /// Version of osquery in the `User-Agent`.
    pub client_version: String,
}

impl Checkin {
    /// The latest of all requests.
    #[must_use]
    pub fn last_seen_at(&self) -> Option<DateTime<Utc>> {
        [
            self.seen_at,
            self.enroll_at,
            self.config_at,
            self.log_at,
            self.distributed_read_at,
            self.distributed_write_at,
        ]
        .into_iter()
        .flatten()
        .max()
    }
}

/// Stores check-ins. Times never run backwards; nodes that were deleted meanwhile are left out.
///
/// # Errors
/// Postgres failed.
pub async fn put(conn: &mut Conn, checkins: &[(NodeId, Checkin)]) -> Result<()> {
    // Sorted, so that two processes that write the same nodes never wait for each other.
    let mut sorted: Vec<&(NodeId, Checkin)> = checkins.iter().collect();
    sorted.sort_by_key(|(id, _)| *id);
    let times = |pick: fn(&Checkin) -> Option<DateTime<Utc>>| {
        sorted
            .iter()
            .map(|(_, checkin)| pick(checkin))
            .collect::<Vec<_>>()
    };
    let ids: Vec<uuid::Uuid> = sorted.iter().map(|(id, _)| id.0).collect();
    let ips: Vec<Option<IpNet>> = sorted
        .iter()
        .map(|(_, checkin)| checkin.ip.map(IpNet::from))
        .collect();
    let versions: Vec<String> = sorted
        .iter()
        .map(|(_, checkin)| checkin.client_version.clone())
        .collect();
    sqlx::query!(
        r#"
        INSERT INTO node_checkins AS stored (node_id, last_seen_at, last_ip, enroll_at, config_at, log_at, distributed_read_at,
            distributed_write_at, client_version)
        SELECT u.*
        FROM unnest($1::uuid[], $2::timestamptz[], $3::inet[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::timestamptz[], $8::timestamptz[], $9::text[])
            AS u (node_id, last_seen_at, last_ip, enroll_at, config_at, log_at, distributed_read_at, distributed_write_at, version)
        JOIN nodes n ON n.id = u.node_id
        WHERE u.last_seen_at IS NOT NULL
        ORDER BY u.node_id
        ON CONFLICT ON CONSTRAINT node_checkins_pkey DO UPDATE SET
            last_seen_at = greatest(stored.last_seen_at, excluded.last_seen_at),
            last_ip = coalesce(excluded.last_ip, stored.last_ip),
            enroll_at = greatest(stored.enroll_at, excluded.enroll_at),
            config_at = greatest(stored.config_at, excluded.config_at),
            log_at = greatest(stored.log_at, excluded.log_at),
            distributed_read_at = greatest(stored.distributed_read_at, excluded.distributed_read_at),
            distributed_write_at = greatest(stored.distributed_write_at, excluded.distributed_write_at),
            client_version = coalesce(nullif(excluded.client_version, ''), stored.client_version)
        "#,
        &ids,
        &times(Checkin::last_seen_at) as &[Option<DateTime<Utc>>],
        &ips as &[Option<IpNet>],
        &times(|checkin| checkin.enroll_at) as &[Option<DateTime<Utc>>],
        &times(|checkin| checkin.config_at) as &[Option<DateTime<Utc>>],
        &times(|checkin| checkin.log_at) as &[Option<DateTime<Utc>>],
        &times(|checkin| checkin.distributed_read_at) as &[Option<DateTime<Utc>>],
        &times(|checkin| checkin.distributed_write_at) as &[Option<DateTime<Utc>>],
        &versions
    )
    .execute(conn)
    .await?;
    Ok(())
}
