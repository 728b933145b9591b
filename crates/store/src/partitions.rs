//! Partitions of the tables that grow by the day. Making and dropping them is the owner's right, lent by two functions of the schema.

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::{Conn, Result};

/// The partitioned tables.
pub const TABLES: [&str; 3] = ["log_batches", "events", "status_logs"];

/// Makes the partitions of one day, if they are missing.
///
/// # Errors
/// The day is too far from today, or Postgres failed.
pub async fn ensure(conn: &mut Conn, day: NaiveDate) -> Result<()> {
    for table in TABLES {
        sqlx::query!("SELECT ensure_partition($1, $2)", table, day)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Makes the partitions of today and of the days ahead.
///
/// # Errors
/// Postgres failed.
pub async fn ensure_ahead(conn: &mut Conn, now: DateTime<Utc>, days: u64) -> Result<()> {
    for ahead in 0..=days {
        ensure(conn, now.date_naive() + Days::new(ahead)).await?;
    }
    Ok(())
}

/// Drops the partitions whose days are past their retention, except log batches that still wait. Gives their names.
///
/// # Errors
/// Postgres failed.
pub async fn drop_old(conn: &mut Conn) -> Result<Vec<String>> {
    let names = sqlx::query_scalar!("SELECT drop_old_partitions()")
        .fetch_all(conn)
        .await?;
    Ok(names.into_iter().flatten().collect())
}
