//! `ostiary-manager verify-backup`, `unpack-backup` and `restore`.
//!
//! A restore looks at everything first, then puts the dump back in one transaction, applies later migrations, and sets right what a
//! backup cannot know. Our processes are kept out of the database until all of that is done.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ostiary_boot::clock::SystemClock;
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_boot::{seal, telemetry};
use ostiary_store::{Db, Options, backups};

use super::archive;
use super::make::Scratch;
use super::manifest::{DATABASE, Manifest};
use super::postgres::{self, Access};
use super::settings::BackupSettings;
use crate::actions::backups::{Restored, settle_restore};
use crate::auth::{Admin, Permit};
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
}

/// A backup that was verified.
struct Backup {
    path: PathBuf,
    /// As the operator named it.
    name: String,
    manifest: Manifest,
    /// Goes with it: the copy of what came by standard input.
    _scratch: Scratch,
}

impl Backup {
    async fn open(file: PathBuf) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || {
            let mut scratch = Scratch::default();
            let name = file.display().to_string();
            let path = if name == "-" {
                spool(&mut scratch)?
            } else {
                file
            };
            let manifest = archive::verify(&path).with_context(|| format!("{name} is not used"))?;
            Ok(Self {
                path,
                name,
                manifest,
                _scratch: scratch,
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
fn spool(scratch: &mut Scratch) -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("ostiary-backup-{}", seal::random_token::<12>()));
    let mut file = scratch.create(path.clone())?;
    io::copy(&mut io::stdin().lock(), &mut file).context("standard input cannot be read")?;
    Ok(path)
}

/// Says what is in a backup.
pub(super) async fn verify(options: Verify) -> anyhow::Result<()> {
    Backup::open(options.file).await?.describe();
    Ok(())
}

/// Writes keys and files into a folder.
pub(super) async fn unpack(options: Unpack) -> anyhow::Result<()> {
    let backup = Backup::open(options.file).await?;
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

/// Restores, or says what would be done.
pub(super) async fn restore(arguments: &SettingsArgs, options: Restore) -> anyhow::Result<()> {
    let settings: Settings = load(arguments).context(
        "a restore needs the settings, with the keys of the backup (ostiary-manager unpack-backup writes them into a folder)",
    )?;
    let backup_settings = BackupSettings::read(arguments)?;
    telemetry::start(&backup_settings.log)?;
    let backup = Backup::open(options.file.clone()).await?;
    backup.describe();
    check_migrations(&backup.manifest)?;
    check_keys(&backup.manifest, &backup_settings, options.with_other_keys)?;
    // Copying and analysing large tables takes its time.
    let unhurried = Options {
        statement_timeout_ms: 0,
        ..settings.database.clone()
    };
    let db = Db::prepare(&unhurried, "ostiary-manager restore")?;
    let programs = check_database(&db, &backup.manifest, &backup_settings, options.replace).await?;
    if options.dry_run {
        println!("Everything fits. Nothing was done.");
        db.close().await;
        return Ok(());
    }
    let access = Access::new(&settings.database.url);
    let app = App::new(db, settings, Arc::new(SystemClock));
    let restored = put_back(&app, backup, programs, access).await.context(
        "the restore is not complete; api, manager and worker are kept out of the database until a restore ends well",
    )?;
    app.db.close().await;
    println!(
        "Restored. schedule_epoch is {}: every node sends all rows of its queries again, from its next config on.\n\
         {} sets of rows count as old until then; {} live queries were cancelled.\n\
         What was revoked or disabled since the backup (users, tokens, enroll secrets, nodes) is in force again: look through it.\n\
         Start api, manager and worker.",
        restored.schedule_epoch, restored.settled.stale_sets, restored.settled.live_queries
    );
    Ok(())
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
    let connected = backups::connected_processes(&mut conn).await?;
    ensure!(
        connected.is_empty(),
        "these are connected to the database, stop them first: {}",
        connected.join(", ")
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

async fn put_back(
    app: &App,
    backup: Backup,
    programs: Programs,
    access: Access,
) -> anyhow::Result<Restored> {
    let mut conn = app.db.acquire().await?;
    for role in backups::ensure_roles(&mut conn).await? {
        println!("made the role {role}; give it its password: ALTER ROLE {role} PASSWORD '…'");
    }
    backups::admit_processes(&mut conn, false).await?;
    drop(conn);
    let (made_at, name) = (backup.manifest.made_at, backup.name.clone());
    tokio::task::spawn_blocking(move || load_dump(&backup, &programs, &access)).await??;
    app.db
        .migrate()
        .await
        .context("later migrations cannot be applied")?;
    let restored = settle_restore(app, &Permit::<Admin>::for_command(), made_at, &name).await?;
    let mut conn = app.db.acquire().await?;
    backups::analyze(&mut conn).await?;
    backups::admit_processes(&mut conn, true).await?;
    Ok(restored)
}

fn load_dump(backup: &Backup, programs: &Programs, access: &Access) -> anyhow::Result<()> {
    let mut done = false;
    archive::each(&backup.path, |name, content| {
        if name == DATABASE {
            let mut dump = zstd::Decoder::new(content)?;
            postgres::restore(
                &programs.psql,
                &programs.pg_restore,
                access,
                backups::CLEAR,
                &mut dump,
            )?;
            done = true;
        }
        Ok(())
    })?;
    if !done {
        bail!("the backup holds no database");
    }
    Ok(())
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
