//! `ostiary-manager verify-backup`, `unpack-backup` and `restore`.
//!
//! A restore looks at everything first; only then the database is touched, in `put_back`.

mod put_back;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ostiary_boot::clock::SystemClock;
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_boot::telemetry;
use ostiary_store::Db;
use ostiary_store::backups::{self, ORPHANS_AFTER};
use tokio_util::sync::CancellationToken;

use super::archive;
use super::manifest::{DATABASE, Manifest};
use super::postgres::{self, Access};
use super::scratch::Scratch;
use super::settings::BackupSettings;
use crate::settings::Settings;
use crate::state::App;

#[derive(Debug, Args)]
pub(in crate::commands) struct Verify {
    /// The backup; `-` for standard input, e.g. behind a command that decrypts it.
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct Unpack {
    /// The backup; `-` for standard input.
    file: PathBuf,
    /// A folder, which is made.
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct Restore {
    /// The backup; `-` for standard input, e.g. behind a command that decrypts it.
    file: PathBuf,
    /// Replace what lies in the database. Without this a database that is not empty is refused.
    #[arg(long)]
    replace: bool,
    /// Only check everything, and say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Restore although the keys of the settings are not those of the backup: enroll secrets are not found then, and destinations
    /// cannot be opened.
    #[arg(long)]
    with_other_keys: bool,
    /// Let the worker delete, a week later, what the storage of carves holds and the backup does not know. Only where nobody else uses
    /// that storage: a machine on which a restore is practised must not delete what belongs to another.
    #[arg(long)]
    clear_orphans: bool,
    /// How long processes that are still connected are waited for, in seconds.
    #[arg(long, default_value_t = 10)]
    wait: u32,
}

/// A backup that was verified.
struct Backup {
    path: PathBuf,
    /// As the operator named it.
    name: String,
    manifest: Manifest,
}

impl Backup {
    async fn open(file: PathBuf, scratch: &Arc<Scratch>) -> anyhow::Result<Self> {
        let scratch = Arc::clone(scratch);
        tokio::task::spawn_blocking(move || {
            let name = file.display().to_string();
            let path = if name == "-" { spool(&scratch)? } else { file };
            let manifest = archive::verify(&path).with_context(|| format!("{name} is not used"))?;
            Ok(Self {
                path,
                name,
                manifest,
            })
        })
        .await?
    }

    fn describe(&self) {
        let manifest = &self.manifest;
        println!(
            "{}: made {} by Ostiary {} from Postgres {}, {} migrations; whole",
            self.name,
            manifest.made_at.to_rfc3339(),
            manifest.ostiary,
            manifest.postgres,
            manifest.migrations.len()
        );
        for member in &manifest.members {
            println!(
                "  {} ({} bytes)",
                member.from.as_ref().unwrap_or(&member.name),
                member.bytes
            );
        }
        for left_out in &manifest.left_out {
            println!("  not in it: {left_out}");
        }
    }
}

/// Standard input can be read only once, but a backup is used only after all of it was verified.
fn spool(scratch: &Scratch) -> anyhow::Result<PathBuf> {
    let (path, mut file) = scratch.create(&std::env::temp_dir(), "backup")?;
    io::copy(&mut io::stdin().lock(), &mut file).context("standard input cannot be read")?;
    Ok(path)
}

/// Says what is in a backup.
pub(super) async fn verify(options: Verify, scratch: &Arc<Scratch>) -> anyhow::Result<()> {
    Backup::open(options.file, scratch).await?.describe();
    Ok(())
}

/// Writes keys and files into a folder.
pub(super) async fn unpack(options: Unpack, scratch: &Arc<Scratch>) -> anyhow::Result<()> {
    let backup = Backup::open(options.file, scratch).await?;
    let folder = options.folder;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    archive::each(&backup.path, |name, content| {
        if name == DATABASE {
            return Ok(());
        }
        let path = folder.join(inside(name)?);
        let parent = path.parent().context("it lies in the folder")?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(parent)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        io::copy(content, &mut file)?;
        println!("{}", path.display());
        Ok(())
    })
}

/// **Invariant:** nothing is written outside of the folder, whatever an archive calls its members.
fn inside(name: &str) -> anyhow::Result<&Path> {
    let path = Path::new(name);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        plain && !name.is_empty(),
        "{name} would lie outside of the folder"
    );
    Ok(path)
}

/// The programs for a restore.
struct Programs {
    psql: PathBuf,
    pg_restore: PathBuf,
}

/// A restore that may begin.
struct Prepared {
    app: App,
    access: Access,
    backup: Backup,
    programs: Programs,
    wait: u32,
    clear_orphans: bool,
}

/// Restores, or says what would be done.
pub(super) async fn restore(
    arguments: &SettingsArgs,
    options: Restore,
    scratch: &Arc<Scratch>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (dry_run, clear_orphans) = (options.dry_run, options.clear_orphans);
    let prepared = tokio::select! {
        prepared = prepare(arguments, options, scratch) => prepared?,
        () = stop.cancelled() => super::leave(scratch),
    };
    let app = prepared.app.clone();
    if dry_run {
        println!("Everything fits. Nothing was done.");
        app.db.close().await;
        return Ok(());
    }
    let restored = put_back::put_back(prepared, stop).await?;
    let settled = &restored.settled;
    println!(
        "Restored. schedule_epoch is {}: every node sends all rows of its queries again, from its next config on.\n\
         {} sets of rows count as old until then; {} live queries were cancelled, {} carves given up.",
        restored.schedule_epoch, settled.stale_sets, settled.live_queries, settled.carves
    );
    if settled.rollout {
        println!("A roll-out was under way: it is halted. Go on with it, or return.");
    }
    println!(
        "What was revoked or disabled since the backup (users, tokens, enroll secrets, nodes) is in force again: look through it.\n\
         Start api, manager and worker."
    );
    // Last, since a large storage takes its time; everything else is done.
    tokio::select! {
        () = tell_orphans(&app, clear_orphans) => {}
        () = stop.cancelled() => println!("The storage of carves was not looked at to its end."),
    }
    app.db.close().await;
    Ok(())
}

/// Says which carves only the storage knows.
async fn tell_orphans(app: &App, clear: bool) {
    let orphans = match put_back::find_orphans(app).await {
        Ok(orphans) => orphans,
        Err(error) => return println!("The storage of carves cannot be looked at: {error:#}."),
    };
    if orphans.is_empty() {
        return;
    }
    print!(
        "{} carves in the storage are not in the backup; ",
        orphans.len()
    );
    if clear {
        println!(
            "the worker deletes them in {} days.",
            ORPHANS_AFTER.num_days()
        );
        return;
    }
    println!("without --clear-orphans they stay:");
    for orphan in orphans {
        println!("  {orphan}");
    }
}

/// Looks at everything.
async fn prepare(
    arguments: &SettingsArgs,
    options: Restore,
    scratch: &Arc<Scratch>,
) -> anyhow::Result<Prepared> {
    let settings: Settings = load(arguments).context(
        "a restore needs the settings, with the keys of the backup (ostiary-manager unpack-backup writes them into a folder)",
    )?;
    let backup_settings = BackupSettings::read(arguments)?;
    telemetry::start(&backup_settings.log)?;
    let backup = Backup::open(options.file.clone(), scratch).await?;
    backup.describe();
    check_migrations(&backup.manifest)?;
    check_keys(&backup.manifest, &backup_settings, options.with_other_keys)?;
    // Copying and analysing large tables takes its time.
    let db = Db::prepare_unhurried(&settings.database, "ostiary-manager restore")?;
    let wait = if options.dry_run { 0 } else { options.wait };
    put_back::alone(&db, wait).await?;
    let programs = check_database(&db, &backup.manifest, &backup_settings, options.replace).await?;
    Ok(Prepared {
        access: Access::new(&settings.database.url),
        app: App::new(db, settings, Arc::new(SystemClock)),
        backup,
        programs,
        wait: options.wait,
        clear_orphans: options.clear_orphans,
    })
}

/// Later migrations can be applied only to what this program knows to the letter.
fn check_migrations(manifest: &Manifest) -> anyhow::Result<()> {
    let known = backups::known_migrations();
    for (version, checksum) in &manifest.migrations {
        match known.get(version) {
            Some(own) => ensure!(
                own == checksum,
                "migration {version} of the backup is another than that of this program ({}): restore it with Ostiary {}",
                env!("CARGO_PKG_VERSION"),
                manifest.ostiary
            ),
            None => bail!(
                "the backup was made by a newer Ostiary ({}; migration {version} is unknown here): restore it with that version",
                manifest.ostiary
            ),
        }
    }
    Ok(())
}

fn check_keys(
    manifest: &Manifest,
    settings: &BackupSettings,
    with_other: bool,
) -> anyhow::Result<()> {
    let present = settings.key_fingerprints();
    let other: Vec<&str> = manifest
        .key_fingerprints
        .iter()
        .filter(|(name, fingerprint)| present.get(*name) != Some(*fingerprint))
        .map(|(name, _)| name.as_str())
        .collect();
    if other.is_empty() {
        return Ok(());
    }
    let names = other.join(" and ");
    ensure!(
        with_other,
        "[keys] {names} of the settings are not those of the backup, so that what they sealed could not be opened. `ostiary-manager \
         unpack-backup` gives you the backup's (keys.toml); --with-other-keys restores nevertheless"
    );
    println!("[keys] {names} are not those of the backup; going on as asked.");
    Ok(())
}

async fn check_database(
    db: &Db,
    manifest: &Manifest,
    settings: &BackupSettings,
    replace: bool,
) -> anyhow::Result<Programs> {
    let mut conn = db.acquire().await.context("Postgres cannot be reached")?;
    let (version, major) = backups::server_version(&mut conn).await?;
    ensure!(
        major >= manifest.postgres_major(),
        "the backup comes from Postgres {}, the server is the older {version}: Postgres cannot go back",
        manifest.postgres
    );
    if !backups::is_empty(&mut conn).await? {
        ensure!(
            replace,
            "the database is not empty; --replace lets the backup take the place of what is there"
        );
        println!("What lies in the database now will be replaced.");
    }
    let folder = &settings.backup.postgres_programs;
    Ok(Programs {
        psql: postgres::find("psql", major, folder)?,
        pg_restore: postgres::find("pg_restore", major, folder)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_unpacked_outside_of_the_folder() {
        assert!(inside("files/etc/ostiary/server.key").is_ok());
        for outside in ["../x", "/etc/passwd", "files/../../x", ""] {
            assert!(inside(outside).is_err(), "{outside}");
        }
    }
}
