//! What a node sent that could not be understood, kept with the reason, as the worker finds it. (The api keeps what it cannot even
//! split by `log_batches::insert_unreadable`.)

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result};

/// A line, or a whole post.
#[derive(Debug, Clone)]
pub struct NewUnreadable {
    /// Id of the row.
    pub id: Uuid,
    /// Of whom.
    pub node_id: NodeId,
    /// In which post.
    pub batch_id: Option<i64>,
    /// The wire's name of the log.
    pub log_type: &'static str,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// As it was sent, compressed by [`compress`](crate::log_batches::compress).
    pub data: Vec<u8>,
}

/// Keeps what could not be understood, in one statement.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, items: &[NewUnreadable]) -> Result<()> {
    let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
    let nodes: Vec<Uuid> = items.iter().map(|item| item.node_id.0).collect();
    let batches: Vec<Option<i64>> = items.iter().map(|item| item.batch_id).collect();
    let types: Vec<&str> = items.iter().map(|item| item.log_type).collect();
    let times: Vec<DateTime<Utc>> = items.iter().map(|item| item.received_at).collect();
    let reasons: Vec<String> = items
        .iter()
        .map(|item| item.reason.replace('\0', "\u{FFFD}"))
        .collect();
    let data: Vec<&[u8]> = items.iter().map(|item| item.data.as_slice()).collect();
    sqlx::query!(
        r#"
        INSERT INTO unreadable (id, node_id, batch_id, log_type, received_at, reason, data)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[])
        "#,
        &ids,
        &nodes,
        &batches as &[Option<i64>],
        &types as &[&str],
        &times,
        &reasons,
        &data as &[&[u8]]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what is past its retention. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM unreadable WHERE received_at < $1::timestamptz - make_interval(days => (
            SELECT keep_days FROM retention WHERE table_name = 'unreadable'))
        "#,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
