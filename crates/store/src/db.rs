//! The pool, its settings, and the migrations.

use std::str::FromStr as _;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};

use crate::{Error, Result};

/// A connection on which functions of this crate work.
pub type Conn = sqlx::PgConnection;

/// An open transaction; it derefs to a [`Conn`] and rolls back unless committed.
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// All migrations, embedded. Only `ostiary-manager migrate` (and tests) run them.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Settings `[database]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `postgres://role:password@host/database`; holds a password, so it is never printed.
    pub url: String,
    /// Connections at most.
    #[serde(default = "max_connections")]
    pub max_connections: u32,
    /// How long a request may wait for a free connection, in milliseconds.
    #[serde(default = "acquire_timeout_ms")]
    pub acquire_timeout_ms: u64,
    /// How long one statement may run, in milliseconds; 0 for no limit.
    #[serde(default = "statement_timeout_ms")]
    pub statement_timeout_ms: u64,
}

fn max_connections() -> u32 {
    10
}

fn acquire_timeout_ms() -> u64 {
    3_000
}

fn statement_timeout_ms() -> u64 {
    10_000
}

impl Options {
    /// The defaults, for a URL.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: max_connections(),
            acquire_timeout_ms: acquire_timeout_ms(),
            statement_timeout_ms: statement_timeout_ms(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    pool: PgPool,
}

impl Db {
    /// Prepares a pool. No connection is made yet: a process starts, and answers, while Postgres is down.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn prepare(options: &Options, application: &str) -> Result<Self> {
        let mut connect = PgConnectOptions::from_str(&options.url)?.application_name(application);
        if options.statement_timeout_ms > 0 {
            let limit = options.statement_timeout_ms.to_string();
            connect = connect.options([("statement_timeout", limit.as_str())]);
        }
        // A process that dies in a transaction must not hold its locks for long.
        connect = connect.options([("idle_in_transaction_session_timeout", "60000")]);
        Ok(Self::pool(options, connect))
    }

    /// The same for an operator's command that may take its time: neither statements nor pauses between them have a limit.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn prepare_unhurried(options: &Options, application: &str) -> Result<Self> {
        let connect = PgConnectOptions::from_str(&options.url)?.application_name(application);
        Ok(Self::pool(options, connect))
    }

    fn pool(options: &Options, connect: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .connect_lazy_with(connect);
        Self { pool }
    }

    /// A connection outside any transaction.
    ///
    /// # Errors
    /// None is free or can be made in time.
    pub async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>> {
        Ok(self.pool.acquire().await?)
    }

    /// A new transaction.
    ///
    /// # Errors
    /// No connection is free or can be made in time.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(self.pool.begin().await?)
    }

    /// A transaction that only reads, and sees the database as it is now until its end, whatever others commit meanwhile.
    ///
    /// # Errors
    /// No connection is free or can be made in time.
    pub async fn begin_snapshot(&self) -> Result<Tx> {
        Ok(self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?)
    }

    /// Commits.
    ///
    /// # Errors
    /// The commit failed; whether it took effect is unknown if the connection broke.
    pub async fn commit(tx: Tx) -> Result<()> {
        Ok(tx.commit().await?)
    }

    /// Rolls back, and waits until Postgres has done so. A transaction that is only dropped is rolled back at some later time.
    ///
    /// # Errors
    /// The connection broke; then Postgres rolls back when it notices.
    pub async fn roll_back(tx: Tx) -> Result<()> {
        Ok(tx.rollback().await?)
    }

    /// Asks Postgres for a sign of life.
    ///
    /// # Errors
    /// It gave none within the pool's time-outs.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Applies the migrations that are missing. Log in as the owner of the database.
    ///
    /// # Errors
    /// A migration failed; it is rolled back, those before it stay.
    pub async fn migrate(&self) -> Result<()> {
        MIGRATIONS
            .run(&self.pool)
            .await
            .map_err(|error| match error {
                sqlx::migrate::MigrateError::Execute(error)
                | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
                other => Error::Corrupt(other.to_string()),
            })
    }

    /// Listens for changed generations. The names of changed ones come out of [`Generations::changed`].
    ///
    /// # Errors
    /// No connection can be made.
    pub async fn listen(&self) -> Result<Generations> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("ostiary_generation").await?;
        Ok(Generations { listener })
    }

    /// Waits for connections in use, then closes all.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// News of changed generations (table `generations`). They may be lost, e.g. while the connection is broken, so whoever keeps
/// something in memory compares numbers now and then besides.
#[derive(Debug)]
pub struct Generations {
    listener: PgListener,
}

impl Generations {
    /// The next name that changed.
    ///
    /// # Errors
    /// The connection broke and could not be made again.
    pub async fn changed(&mut self) -> Result<String> {
        Ok(self.listener.recv().await?.payload().to_owned())
    }
}

/// The present number of every generation, by name.
///
/// # Errors
/// Postgres failed.
pub async fn generations(conn: &mut Conn) -> Result<std::collections::HashMap<String, i64>> {
    let rows = sqlx::query!("SELECT name, generation FROM generations")
        .fetch_all(conn)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.name, row.generation))
        .collect())
}
