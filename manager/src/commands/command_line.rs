//! The command line itself, and what is no more than a few lines.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use ostiary_boot::clock::SystemClock;
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_boot::{shutdown, telemetry, tls};
use ostiary_domain::clock::Clock as _;
use ostiary_store::{Db, Options};
use serde::Deserialize;

use super::{backup, moving, seed};
use crate::actions::{SqlCheckers, look_at_all};
use crate::settings::Settings;
use crate::state::App;
use crate::views::Views;

#[derive(Debug, Parser)]
#[command(
    name = "ostiary-manager",
    version,
    about = "The pages and the REST interface of Ostiary, and commands for its operator"
)]
struct Arguments {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve pages and REST (the default).
    Serve,
    /// Apply the migrations that are missing. Log in as the owner of the database.
    Migrate,
    /// Compile every template and say whether one is broken.
    CheckTemplates,
    #[command(flatten)]
    Backup(backup::Command),
    #[command(flatten)]
    Moving(moving::Command),
    #[command(flatten)]
    Seed(seed::Command),
}

/// Reads the command line and does what it says.
///
/// # Errors
/// Whatever went wrong, in words for the operator.
pub fn main() -> anyhow::Result<()> {
    tls::install_provider();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let settings: Settings = load(&arguments.settings)?;
            telemetry::start(&settings.log)?;
            crate::serve(settings, shutdown::on_signal()?).await
        }
        Command::Migrate => migrate(&arguments.settings).await,
        Command::CheckTemplates => {
            let count = Views::new(Arc::new(SystemClock)).check()?;
            println!("{count} templates compile");
            Ok(())
        }
        Command::Backup(command) => command.run(&arguments.settings).await,
        Command::Moving(command) => {
            let app = app(&arguments.settings)?;
            let done = command.run(&app).await;
            app.db.close().await;
            done
        }
        Command::Seed(command) => {
            let app = app(&arguments.settings)?;
            let done = command.run(&app).await;
            app.db.close().await;
            done
        }
    }
}

/// What commands work with, as the pages do.
fn app(arguments: &SettingsArgs) -> anyhow::Result<App> {
    let settings: Settings = load(arguments)?;
    let db = Db::prepare(&settings.database, "ostiary-manager command")?;
    Ok(App::new(db, settings, Arc::new(SystemClock)))
}

/// Migrating needs no keys and must not wait for them.
#[derive(Debug, Deserialize)]
struct MigrateSettings {
    log: telemetry::Options,
    database: Options,
}

async fn migrate(arguments: &SettingsArgs) -> anyhow::Result<()> {
    let settings: MigrateSettings = load(arguments)?;
    telemetry::start(&settings.log)?;
    // An index over a large table takes its time.
    let db = Db::prepare_unhurried(&settings.database, "ostiary-manager migrate")?;
    db.migrate()
        .await
        .context("the migrations cannot be applied")?;
    // What is denied to nodes holds for all SQL that there is, also for that of a migration.
    let mut tx = db.begin().await?;
    let looked = look_at_all(&SqlCheckers::default(), &mut tx, SystemClock.now()).await?;
    Db::commit(tx).await?;
    db.close().await;
    println!("the database is up to date");
    if looked.unknown > 0 {
        println!(
            "nobody can say what {} of {} texts of SQL read: where tables are denied they are kept from nodes (page Denied tables)",
            looked.unknown, looked.texts
        );
    }
    Ok(())
}
