//! The part of a restore that touches the database: the dump in one transaction, later migrations, and what a backup cannot know.
//!
//! **Invariant:** our processes are kept out while it goes on and let in again however it ends, but for one case: the dump lies in
//! the database and was not set right. Worked with, it would tell of findings that never were.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use ostiary_store::{Db, backups};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{DATABASE, Prepared, archive, postgres};
use crate::actions::backups::{Restored, settle_restore};
use crate::auth::{Admin, Permit};
use crate::state::App;

/// How often it is looked who is connected.
const LOOKS_A_SECOND: u32 = 4;

/// How often, a second apart, it is tried to let our processes in again when Postgres does not answer.
const TRIES: u32 = 60;

/// Waits until none of our processes is connected.
///
/// # Errors
/// Some still are after so many seconds; the message names them.
pub(super) async fn alone(db: &Db, seconds: u32) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LOOKS_A_SECOND);
    let mut connected = Vec::new();
    for look in 0..=seconds.saturating_mul(LOOKS_A_SECOND) {
        ticks.tick().await;
        let mut conn = db.acquire().await.context("Postgres cannot be reached")?;
        connected = backups::connected_processes(&mut conn).await?;
        if connected.is_empty() {
            return Ok(());
        }
        if look == 0 && seconds > 0 {
            println!(
                "Waiting for {} to leave the database.",
                connected.join(", ")
            );
        }
    }
    bail!(
        "these are connected to the database, stop them first: {}",
        connected.join(", ")
    )
}

/// Puts a backup back.
///
/// # Errors
/// It failed or was stopped; the message says how the database was left.
pub(super) async fn put_back(
    prepared: Prepared,
    stop: &CancellationToken,
) -> anyhow::Result<Restored> {
    let app = prepared.app.clone();
    // A task of its own, so that even a panic comes back here.
    let worked = tokio::spawn(work(prepared, stop.clone())).await;
    let worked = worked.context("the restore has panicked").flatten();
    let left = let_in_again(&app).await;
    match (worked, left) {
        (Ok(restored), Left::Open) => Ok(restored),
        (Ok(_), left) => bail!("everything was restored, but {}", left.sentence()),
        (Err(error), left) => {
            Err(error.context(format!("the restore has failed, and {}", left.sentence())))
        }
    }
}

async fn work(prepared: Prepared, stop: CancellationToken) -> anyhow::Result<Restored> {
    let app = prepared.app.clone();
    let mut conn = app.db.acquire().await?;
    for role in backups::ensure_roles(&mut conn).await? {
        println!("made the role {role}; give it its password: ALTER ROLE {role} PASSWORD '…'");
    }
    backups::admit_processes(&mut conn, false).await?;
    drop(conn);
    // Whoever came in between the first look and the bar.
    alone(&app.db, prepared.wait).await?;
    let manifest = &prepared.backup.manifest;
    let (made_at, name) = (manifest.made_at, prepared.backup.name.clone());
    let clear_orphans = prepared.clear_orphans;
    tokio::task::spawn_blocking(move || load_dump(&prepared, &stop)).await??;
    let mut conn = app.db.acquire().await?;
    ensure!(
        backups::is_unsettled(&mut conn).await?,
        "the dump was not committed"
    );
    drop(conn);
    // From here on it is quicker and safer to go on than to go back: signals wait.
    app.db
        .migrate()
        .await
        .context("later migrations cannot be applied")?;
    let permit = Permit::<Admin>::for_command();
    let restored = settle_restore(&app, &permit, made_at, &name, clear_orphans).await?;
    let mut conn = app.db.acquire().await?;
    backups::mark_settled(&mut conn).await?;
    if let Err(error) = backups::analyze(&mut conn).await {
        println!("Statistics cannot be gathered now, so queries are slow for a while: {error:#}.");
    }
    Ok(restored)
}

/// How our processes find the database.
#[derive(Debug)]
enum Left {
    /// They may connect.
    Open,
    /// What lies in it must not be worked with.
    Unsettled,
    /// This kept us from asking Postgres, or from letting them in.
    Unknown(ostiary_store::Error),
}

impl Left {
    fn sentence(&self) -> String {
        match self {
            Self::Open => {
                "the database is as it was before; api, manager and worker may connect again".into()
            }
            Self::Unsettled => {
                "the backup lies in the database but nodes were not asked yet to send everything again: api, manager and worker are \
                 kept out until `ostiary-manager restore --replace` has ended well"
                    .into()
            }
            Self::Unknown(error) => format!(
                "api, manager and worker cannot be let in ({error:#}): they are kept out until you run the restore again"
            ),
        }
    }
}

async fn let_in_again(app: &App) -> Left {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut tries = 0;
    loop {
        ticks.tick().await;
        tries += 1;
        let left = async {
            let mut conn = app.db.acquire().await?;
            if backups::is_unsettled(&mut conn).await? {
                return Ok(Left::Unsettled);
            }
            backups::admit_processes(&mut conn, true).await?;
            ostiary_store::Result::Ok(Left::Open)
        };
        match left.await {
            Ok(left) => return left,
            Err(error) if tries == TRIES => return Left::Unknown(error),
            Err(error) => tracing::warn!(%error, "the processes cannot be let in yet"),
        }
    }
}

fn load_dump(prepared: &Prepared, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut done = false;
    let putting = postgres::Putting {
        psql: &prepared.programs.psql,
        pg_restore: &prepared.programs.pg_restore,
        access: &prepared.access,
        before: backups::CLEAR,
        after: backups::MARK_UNSETTLED,
        stop,
    };
    archive::each(&prepared.backup.path, |name, content| {
        if name == DATABASE {
            putting.restore(&mut zstd::Decoder::new(content)?)?;
            done = true;
        }
        Ok(())
    })?;
    ensure!(done, "the backup holds no database");
    Ok(())
}

/// The objects of carves which the storage holds and the database does not know.
///
/// # Errors
/// The storage cannot be listed, or Postgres failed.
pub(super) async fn find_orphans(app: &App) -> anyhow::Result<Vec<Uuid>> {
    let mut objects = app.blobs()?.list_before(app.now()).chunks(1000);
    let mut orphans = Vec::new();
    let mut conn = app.db.acquire().await?;
    while let Some(chunk) = objects.next().await {
        let ids = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
        orphans.extend(backups::orphans_among(&mut conn, &ids).await?);
    }
    Ok(orphans)
}
