//! Up to which id a source is settled: no transaction that is still open can put a row at or below it.
//!
//! Whoever inserts into a table holds its lock `ROW EXCLUSIVE` from before the first id is taken from its sequence until after the
//! commit is visible. So: look how far ids were given out, *then* who holds that lock; once those have ended, all ids up to there are
//! either visible or never will be. Backups and other readers hold no such lock, and hold nothing up.

use std::collections::HashMap;

use super::Source;
use crate::{Conn, Result};

/// The horizons of all sources, as one process came to know them. A fresh one knows nothing, and learns within a look or two.
#[derive(Debug, Default)]
pub struct Horizons {
    known: HashMap<Source, Horizon>,
}

#[derive(Debug, Default)]
struct Horizon {
    settled: i64,
    /// Ids given out, and the transactions that were open then: settled when those have ended.
    waits: Option<(i64, Vec<String>)>,
}

impl Horizons {
    /// Looks again how far a source is settled. It never waits: open transactions are looked for again the next time.
    ///
    /// # Errors
    /// Postgres failed.
    pub async fn look(&mut self, conn: &mut Conn, source: Source) -> Result<i64> {
        let horizon = self.known.entry(source).or_default();
        if let Some((given, open)) = horizon.waits.take() {
            if writers(conn, source)
                .await?
                .iter()
                .any(|one| open.contains(one))
            {
                horizon.waits = Some((given, open));
            } else {
                horizon.settled = given;
            }
        }
        if horizon.waits.is_none() {
            // In this order: who took an id before the first look is seen by the second, or has ended.
            let given = given_out(conn, source).await?;
            // A database that was set back: what was known is not true of it.
            horizon.settled = horizon.settled.min(given);
            if given > horizon.settled {
                let open = writers(conn, source).await?;
                if open.is_empty() {
                    horizon.settled = given;
                } else {
                    horizon.waits = Some((given, open));
                }
            }
        }
        Ok(horizon.settled)
    }
}

/// The last id that the sequence of a source gave out; 0 before the first.
///
/// # Errors
/// Postgres failed.
pub async fn given_out(conn: &mut Conn, source: Source) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass), 0) AS "last!""#,
        source.table()
    )
    .fetch_one(conn)
    .await?)
}

/// The open transactions that may have inserted into a source.
async fn writers(conn: &mut Conn, source: Source) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT virtualtransaction AS "transaction!" FROM pg_locks
        WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND relation = $1::text::regclass AND virtualtransaction IS NOT NULL
        "#,
        source.table()
    )
    .fetch_all(conn)
    .await?)
}
