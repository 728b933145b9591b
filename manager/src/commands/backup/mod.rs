//! Backups: one file with all that Postgres holds and with what it does not hold (keys, certificates, settings), and its way back
//! under a fleet that has lived on.

mod archive;
mod make;
mod manifest;
mod postgres;
mod restore;
mod scratch;
mod settings;

use std::sync::Arc;

use clap::Subcommand;
use ostiary_boot::settings::SettingsArgs;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use scratch::Scratch;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a backup: the database, sealing keys, certificates, settings. Log in as the owner of the database.
    Backup(make::Make),
    /// Say what is in a backup, and whether it is whole.
    VerifyBackup(restore::Verify),
    /// Write the keys and files of a backup into a folder. The database is not touched.
    UnpackBackup(restore::Unpack),
    /// Put the database of a backup back, and ask all nodes to send everything again. Log in as the owner of the database, with api,
    /// manager and worker stopped.
    Restore(restore::Restore),
}

impl Command {
    /// Does it. A signal stops it, and nothing is left behind.
    pub(super) async fn run(self, arguments: &SettingsArgs) -> anyhow::Result<()> {
        let scratch = Arc::new(Scratch::default());
        let stop = on_signal()?;
        match self {
            // It has to let our processes in again, so it ends by itself.
            Self::Restore(options) => restore::restore(arguments, options, &scratch, &stop).await,
            other => {
                tokio::select! {
                    done = other.work(arguments, &scratch) => done,
                    () = stop.cancelled() => leave(&scratch),
                }
            }
        }
    }

    async fn work(self, arguments: &SettingsArgs, scratch: &Arc<Scratch>) -> anyhow::Result<()> {
        match self {
            Self::Backup(options) => make::make(arguments, options, Arc::clone(scratch)).await,
            Self::VerifyBackup(options) => restore::verify(options, scratch).await,
            Self::UnpackBackup(options) => restore::unpack(options, scratch).await,
            Self::Restore(_) => unreachable!("it is run above"),
        }
    }
}

/// Leaves at once: threads that pack or read must not be waited for.
fn leave(scratch: &Scratch) -> ! {
    scratch.remove();
    eprintln!("Stopped. Nothing was done.");
    std::process::exit(130)
}

/// A token that is cancelled by SIGINT or SIGTERM; further signals change nothing.
fn on_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopped.cancel();
        }
    });
    Ok(stop)
}
