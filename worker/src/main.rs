//! `ostiary-worker`: decodes what nodes report, judges it by the rules, and sends alerts.

use clap::Parser;
use ostiary_boot::{settings, shutdown, telemetry};
use ostiary_worker::Settings;

/// Decodes what nodes report, judges it by the rules, and sends alerts.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    settings: settings::SettingsArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings: Settings = settings::load(&Args::parse().settings)?;
    telemetry::start(&settings.log)?;
    ostiary_worker::run(settings, shutdown::on_signal()?).await
}
