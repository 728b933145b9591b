//! `ostiary-manager backup`: everything that a fleet needs to be known again, in one file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use ostiary_boot::clock::SystemClock;
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_boot::telemetry;
use ostiary_domain::clock::Clock as _;
use ostiary_store::{Db, backups};

use super::archive::{self, Content, Source};
use super::manifest::{self, FORMAT, Manifest};
use super::postgres::{self, Access};
use super::scratch::Scratch;
use super::settings::BackupSettings;
use crate::actions;
use crate::auth::{Admin, Permit};
use crate::settings::Settings;
use crate::state::App;

/// Postgres' dumps compress well at any level; this one keeps up with a disk.
const ZSTD_LEVEL: i32 = 3;

#[derive(Debug, Args)]
pub(in crate::commands) struct Make {
    /// A folder, in which the backup gets a name by its time, or the file to write.
    target: PathBuf,
}

/// What is to be packed, and where.
struct Plan {
    out: PathBuf,
    manifest: Manifest,
    sources: Vec<Source>,
    pg_dump: PathBuf,
    access: Access,
    encrypt: Vec<String>,
}

/// Makes a backup and says what is in it.
pub(super) async fn make(
    arguments: &SettingsArgs,
    options: Make,
    scratch: Arc<Scratch>,
) -> anyhow::Result<()> {
    let settings: Settings = load(arguments)?;
    let backup_settings = BackupSettings::read(arguments)?;
    telemetry::start(&backup_settings.log)?;
    let now = SystemClock.now();
    let db = Db::prepare(&settings.database, "ostiary-manager backup")?;
    let mut conn = db.acquire().await.context("Postgres cannot be reached")?;
    let (postgres, major) = backups::server_version(&mut conn).await?;
    let migrations = backups::applied_migrations(&mut conn).await?;
    drop(conn);
    ensure!(
        !migrations.is_empty(),
        "the database holds nothing of Ostiary"
    );
    let pg_dump = postgres::find("pg_dump", major, &backup_settings.backup.postgres_programs)?;
    let (files, missing) = backup_settings.files(arguments)?;
    let mut sources = vec![backup_settings.keys_file()];
    sources.extend(files);
    let not_here = missing
        .iter()
        .map(|path| format!("{} (not on this machine)", path.display()));
    let left_out = manifest::LEFT_OUT
        .iter()
        .map(ToString::to_string)
        .chain(not_here)
        .collect();
    let encrypt = backup_settings.backup.encrypt.clone();
    let out = out_file(&options.target, now, &encrypt)?;
    let plan = Plan {
        manifest: Manifest {
            format: FORMAT,
            made_at: now,
            ostiary: env!("CARGO_PKG_VERSION").to_owned(),
            postgres,
            migrations,
            key_fingerprints: backup_settings.key_fingerprints(),
            members: Vec::new(),
            left_out,
        },
        out: out.clone(),
        sources,
        pg_dump,
        access: Access::new(&settings.database.url),
        encrypt,
    };
    let (manifest, bytes, encrypted) =
        tokio::task::spawn_blocking(move || pack(plan, &scratch)).await??;
    let app = App::new(db, settings, Arc::new(SystemClock));
    let made = backups::Backup {
        made_at: now,
        file: out.display().to_string(),
        bytes,
        encrypted,
    };
    let noted = actions::backups::note_made(&app, &Permit::<Admin>::for_command(), &made).await;
    app.db.close().await;
    noted.with_context(|| format!("{} is complete, but cannot be noted", out.display()))?;
    report(&made, &manifest);
    if options.target.is_dir() && backup_settings.backup.keep > 0 {
        remove_old(&options.target, backup_settings.backup.keep)?;
    }
    Ok(())
}

fn out_file(target: &Path, now: DateTime<Utc>, encrypt: &[String]) -> anyhow::Result<PathBuf> {
    let out = if target.is_dir() {
        let suffix = encrypt
            .first()
            .and_then(|program| Path::new(program).file_name())
            .map(|program| format!(".{}", program.to_string_lossy()))
            .unwrap_or_default();
        target.join(format!(
            "ostiary-{}.tar{suffix}",
            now.format("%Y%m%dT%H%M%SZ")
        ))
    } else {
        target.to_owned()
    };
    ensure!(!out.exists(), "{} exists already", out.display());
    Ok(out)
}

/// Dumps, packs, and gives the file its name when it is whole and on the disk. Gives the manifest, the size, and if it is encrypted.
fn pack(mut plan: Plan, scratch: &Scratch) -> anyhow::Result<(Manifest, i64, bool)> {
    let folder = plan
        .out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let (dump_file, dump) = scratch.create(&folder, "dump")?;
    let mut compressed = zstd::Encoder::new(dump, ZSTD_LEVEL)?;
    postgres::dump(&plan.pg_dump, &plan.access, &mut compressed)?;
    compressed.finish()?;
    plan.sources.push(Source {
        name: manifest::DATABASE.to_owned(),
        content: Content::Made(dump_file),
    });
    for source in &plan.sources {
        plan.manifest.members.push(source.describe()?);
    }
    let (mut finished, file) = scratch.create(&folder, "tar")?;
    archive::write(&file, &plan.manifest, &plan.sources)?.sync_all()?;
    archive::verify(&finished).context("what was just written cannot be read again")?;
    let encrypted = !plan.encrypt.is_empty();
    if encrypted {
        let plain = finished;
        let file;
        (finished, file) = scratch.create(&folder, "encrypted")?;
        postgres::filter(&plan.encrypt, &plain, file.try_clone()?).context("[backup] encrypt")?;
        file.sync_all()?;
    }
    let bytes = i64::try_from(std::fs::metadata(&finished)?.len()).unwrap_or(i64::MAX);
    std::fs::rename(&finished, &plan.out)?;
    File::open(&folder)?.sync_all()?;
    scratch.remove();
    Ok((plan.manifest, bytes, encrypted))
}

fn report(made: &backups::Backup, manifest: &Manifest) {
    println!("{} ({} bytes)", made.file, made.bytes);
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
    if !made.encrypted {
        println!(
            "It holds keys and is not encrypted: only the mode 0600 keeps it from others ([backup] encrypt)."
        );
    }
}

/// Removes all but the newest backups that we made in a folder; names sort by time.
fn remove_old(folder: &Path, keep: usize) -> anyhow::Result<()> {
    let mut ours: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .filter(|entry| is_ours(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    ours.sort();
    let too_many = ours.len().saturating_sub(keep);
    for path in &ours[..too_many] {
        std::fs::remove_file(path)
            .with_context(|| format!("{} cannot be removed", path.display()))?;
        println!("removed {}", path.display());
    }
    Ok(())
}

/// `ostiary-20261121T070000Z.tar`, with what an encryption adds.
fn is_ours(name: &str) -> bool {
    let Some((time, rest)) = name
        .strip_prefix("ostiary-")
        .and_then(|rest| rest.split_once(".tar"))
    else {
        return false;
    };
    let shape = |at: usize, c: char| match at {
        8 => c == 'T',
        15 => c == 'Z',
        _ => c.is_ascii_digit(),
    };
    time.len() == 16 && time.char_indices().all(|(at, c)| shape(at, c)) && !rest.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backups_of_ours_are_ever_removed() {
        for ours in [
            "ostiary-20261121T070000Z.tar",
            "ostiary-20261121T070000Z.tar.age",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "ostiary-20261121T070000Z.tar.dump.part",
            "ostiary-keep-me.tar",
            "ostiary-20261121T07000éZ.tar",
            "20261121T070000Z.tar",
            "notes.txt",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_more_than_shall_be_kept() {
        let folder = std::env::temp_dir().join(format!("ostiary-keep-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for day in 1..=4 {
            std::fs::write(
                folder.join(format!("ostiary-2026110{day}T000000Z.tar")),
                "x",
            )
            .unwrap();
        }
        std::fs::write(folder.join("mine.txt"), "x").unwrap();
        remove_old(&folder, 2).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "mine.txt",
                "ostiary-20261103T000000Z.tar",
                "ostiary-20261104T000000Z.tar"
            ]
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
