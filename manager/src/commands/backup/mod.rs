//! Backups: one file with all that Postgres holds and with what it does not hold (keys, certificates, settings), and its way back
//! under a fleet that has lived on.

mod archive;
mod make;
mod manifest;
mod postgres;
mod restore;
mod settings;

use clap::Subcommand;
use ostiary_boot::settings::SettingsArgs;

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
    pub(super) async fn run(self, arguments: &SettingsArgs) -> anyhow::Result<()> {
        match self {
            Self::Backup(options) => make::make(arguments, options).await,
            Self::VerifyBackup(options) => restore::verify(options).await,
            Self::UnpackBackup(options) => restore::unpack(options).await,
            Self::Restore(options) => restore::restore(arguments, options).await,
        }
    }
}
