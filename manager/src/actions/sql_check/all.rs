//! Looking at all SQL that there is: at the start, since a release may know other tables; after a restore; and whenever views or
//! tables change, since SQL may read other tables by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::node_config::TablesOfSql;
use ostiary_sql_check::{Checker, Platforms, Question};
use ostiary_store::table_denials::{self, SqlReads};
use ostiary_store::{Conn, config_parts, config_revisions, live_queries, rollouts};

use super::knowledge::{Brought, SqlCheckers};

/// How long it is remembered what SQL reads that is in no config any more: who takes a change back need not wait for a look.
const REMEMBERED: TimeDelta = TimeDelta::days(90);

/// Texts that are looked at between two statements: Postgres ends a session that is idle in its transaction for a minute.
const AT_ONCE: usize = 10;

/// What came of a look at everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookedAtAll {
    /// Texts of configs and of live queries that are open.
    pub texts: usize,
    /// Texts of which something else is known than before.
    pub changed: usize,
    /// Texts of which nobody can say what they read: they are kept from the nodes of every denial.
    pub unknown: usize,
}

/// Finds out which tables all SQL reads that nodes are given now or may be given by what is under way. Whether it may be used is not
/// asked: it is there. The transaction waits for the turn to change configs.
///
/// # Errors
/// Postgres failed.
pub async fn look_at_all(
    checkers: &SqlCheckers,
    conn: &mut Conn,
    now: DateTime<Utc>,
) -> ostiary_store::Result<LookedAtAll> {
    config_revisions::lock(conn).await?;
    let mut texts = config_parts::load(conn).await?.sql();
    if let Some(split) = rollouts::find_split(conn).await? {
        texts.extend(split.base.sql());
    }
    let open = live_queries::list_open_sql(conn, now).await?;
    texts.extend(open.iter().flat_map(|query| query.sql.clone()));
    texts.sort_unstable();
    texts.dedup();
    let checker = checkers.load(conn, Brought::default()).await?;
    let mut known = checkers.known(&checker);
    let mut after: BTreeMap<String, SqlReads> = BTreeMap::new();
    let mut looked = LookedAtAll {
        texts: texts.len(),
        ..LookedAtAll::default()
    };
    for some in texts.chunks(AT_ONCE) {
        let before = table_denials::reads_of(conn, some).await?;
        for (sql, reads) in read(&checker, &mut known, some).await {
            looked.unknown += usize::from(reads.is_err());
            if before.get(&sql) != Some(&reads) {
                looked.changed += 1;
                table_denials::note_sql(conn, &sql, &reads, now).await?;
            }
            after.insert(sql, reads);
        }
    }
    checkers.remember(&checker, &after);
    for query in &open {
        // What cannot be said any more does not run on a node either: what was known is kept.
        let reads = query
            .sql
            .iter()
            .filter_map(|sql| after.get(sql)?.as_ref().ok());
        let mut tables: Vec<String> = reads.flatten().cloned().collect();
        tables.extend(query.tables.iter().cloned());
        tables.sort_unstable();
        tables.dedup();
        if tables.iter().any(|table| !query.tables.contains(table)) {
            live_queries::set_tables(conn, query.id, &tables).await?;
        }
    }
    if looked.changed > 0 {
        table_denials::announce(conn).await?;
    }
    table_denials::forget_sql(conn, &texts, now - REMEMBERED).await?;
    Ok(looked)
}

/// What these texts read; of those in `known` it is known already.
async fn read(
    checker: &Arc<Checker>,
    known: &mut TablesOfSql,
    texts: &[String],
) -> Vec<(String, SqlReads)> {
    let is_new = |sql: &&String| !known.contains_key(*sql);
    let new: Vec<String> = texts.iter().filter(is_new).cloned().collect();
    let of_old = texts
        .iter()
        .filter_map(|sql| Some((sql.clone(), Ok(known.remove(sql)?))));
    let mut all: Vec<(String, SqlReads)> = of_old.collect();
    if !new.is_empty() {
        all.extend(look_at(Arc::clone(checker), new).await);
    }
    all
}

async fn look_at(checker: Arc<Checker>, texts: Vec<String>) -> Vec<(String, SqlReads)> {
    // Strange SQL may take SQLite a second.
    let read = tokio::task::spawn_blocking(move || {
        let denied = BTreeMap::new();
        let question = Question {
            platforms: Platforms::ALL,
            version: "",
            denied: &denied,
            pragmas: true,
            foreign_tables: false,
        };
        let read = texts.into_iter().map(|sql| {
            let reads = match checker.check(&question, &sql) {
                Ok(checked) => Ok(checked.tables.into_iter().collect()),
                Err(problem) => Err(problem.message),
            };
            (sql, reads)
        });
        read.collect()
    });
    match read.await {
        Ok(read) => read,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
