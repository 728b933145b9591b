//! A fresh database per test, in the Postgres that `OSTIARY_TEST_DATABASE_URL` names (script/test starts a private one).
//!
//! The first caller of a process migrates a template database; every test gets a copy of it, which takes some 30 ms.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

use crate::{Db, Options};

/// A database of its own, dropped at the end.
#[derive(Debug)]
pub struct TestDb {
    /// Logged in as the owner.
    pub db: Db,
    name: String,
    server: String,
}

/// The migrations create the roles without a password, so that nobody can log in; the throw-away server of the tests gives them one.
const ROLE_PASSWORD: &str = "ostiary-test";

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

impl TestDb {
    /// Makes a database.
    ///
    /// # Panics
    /// `OSTIARY_TEST_DATABASE_URL` is missing or the server cannot be used: the test cannot run.
    pub async fn new() -> Self {
        let server = std::env::var("OSTIARY_TEST_DATABASE_URL").expect(
            "OSTIARY_TEST_DATABASE_URL names no Postgres; run the tests by script/test, or by `script/test shell` for a shell with one",
        );
        let template = TEMPLATE.get_or_init(|| make_template(server.clone())).await;
        Self::copy(server, template).await
    }

    /// Makes a database in another server than that of the other tests: one which a test may stop.
    ///
    /// # Panics
    /// The server cannot be used.
    pub async fn at(server: &str) -> Self {
        let template = make_template(server.to_owned()).await;
        Self::copy(server.to_owned(), &template).await
    }

    async fn copy(server: String, template: &str) -> Self {
        let name = format!(
            "ostiary_test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut admin = PgConnection::connect(&server)
            .await
            .expect("the test server can be reached");
        create(&mut admin, &name, &format!("TEMPLATE \"{template}\"")).await;
        let db = Db::prepare(&options(with_database(&server, &name)), "test")
            .expect("the URL was just used");
        Self { db, name, server }
    }

    /// The URL of this database, for one of the roles of the processes or (`None`) for the owner.
    #[must_use]
    pub fn url(&self, role: Option<&str>) -> String {
        let url = with_database(&self.server, &self.name);
        match role {
            None => url,
            Some(role) => {
                let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                format!("{scheme}://{role}:{ROLE_PASSWORD}@{host}")
            }
        }
    }

    /// A pool for one of the roles.
    ///
    /// # Panics
    /// The URL cannot be read.
    #[must_use]
    pub fn as_role(&self, role: &str) -> Db {
        Db::prepare(&options(self.url(Some(role))), role).expect("the URL was just made")
    }

    /// Runs statements as the owner.
    ///
    /// # Panics
    /// Postgres refuses one.
    pub async fn execute(&self, sql: &str) {
        let mut conn = self
            .db
            .acquire()
            .await
            .expect("the test server can be reached");
        execute(&mut conn, sql).await;
    }

    /// The first column of every row, as text.
    ///
    /// # Panics
    /// Postgres refuses the query, or the column is no text (cast it) or null.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let mut conn = self
            .db
            .acquire()
            .await
            .expect("the test server can be reached");
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut *conn)
            .await;
        rows.expect("the query is right and gives texts")
    }

    /// Closes and drops the database. Databases of a test that panicked stay until the server goes, which script/test does.
    pub async fn drop(self) {
        self.db.close().await;
        if let Ok(mut admin) = PgConnection::connect(&self.server).await {
            let sql = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
            let _ = admin.execute(sqlx::AssertSqlSafe(sql)).await;
        }
    }
}

/// For tests that are not about time: on a busy machine a connection or a statement may take long.
#[must_use]
pub fn options(url: String) -> Options {
    Options {
        acquire_timeout_ms: 180_000,
        statement_timeout_ms: 180_000,
        ..Options::at(url)
    }
}

/// Runs statements on a connection or in a transaction, e.g. to hold a lock.
///
/// # Panics
/// Postgres refuses one.
pub async fn execute(conn: &mut crate::Conn, sql: &str) {
    conn.execute(sqlx::AssertSqlSafe(sql.to_owned()))
        .await
        .expect("the statements are right");
}

/// Makes, or finds, the migrated template of exactly these migrations. Several test processes may come at once.
async fn make_template(server: String) -> String {
    let digest = crate::MIGRATIONS.iter().fold(0_u64, |digest, migration| {
        migration.checksum.iter().fold(digest, |digest, byte| {
            digest.wrapping_mul(31).wrapping_add(u64::from(*byte))
        })
    });
    let name = format!("ostiary_template_{digest:016x}");
    let mut admin = PgConnection::connect(&server)
        .await
        .expect("the test server can be reached");
    sqlx::query("SELECT pg_advisory_lock(7310)")
        .execute(&mut admin)
        .await
        .expect("a lock can be taken");
    let ready: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .expect("the catalogue can be read");
    if !ready {
        let draft = format!("{name}_draft");
        admin
            .execute(sqlx::AssertSqlSafe(format!(
                "DROP DATABASE IF EXISTS \"{draft}\" WITH (FORCE)"
            )))
            .await
            .expect("a left-over draft can be dropped");
        create(&mut admin, &draft, "").await;
        let db = Db::prepare(&options(with_database(&server, &draft)), "template")
            .expect("the URL was just used");
        db.migrate()
            .await
            .expect("the migrations apply to an empty database");
        db.close().await;
        admin
            .execute(sqlx::AssertSqlSafe(format!(
                "ALTER DATABASE \"{draft}\" RENAME TO \"{name}\""
            )))
            .await
            .expect("the draft can be renamed");
    }
    for role in ["ostiary_api", "ostiary_manager", "ostiary_worker"] {
        let sql = format!("ALTER ROLE {role} PASSWORD '{ROLE_PASSWORD}'");
        admin
            .execute(sqlx::AssertSqlSafe(sql))
            .await
            .expect("the roles are there since the template was migrated");
    }
    sqlx::query("SELECT pg_advisory_unlock(7310)")
        .execute(&mut admin)
        .await
        .expect("the lock is ours");
    name
}

async fn create(admin: &mut PgConnection, name: &str, rest: &str) {
    admin
        .execute(sqlx::AssertSqlSafe(format!(
            "CREATE DATABASE \"{name}\" {rest}"
        )))
        .await
        .expect("a database can be created");
    // Grants on the database itself are not copied from a template.
    let grant = format!("GRANT CONNECT ON DATABASE \"{name}\" TO PUBLIC");
    admin
        .execute(sqlx::AssertSqlSafe(grant))
        .await
        .expect("the grant is ours to give");
}

/// The same server, another database.
fn with_database(server: &str, name: &str) -> String {
    let (base, query) = server
        .split_once('?')
        .map_or((server, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").expect("a URL has a scheme");
    let authority = rest.split('/').next().unwrap_or(rest);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{name}{query}")
}
