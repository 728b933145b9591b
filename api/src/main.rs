//! Starts the api.

use clap::Parser as _;
use ostiary_boot::{settings, shutdown, telemetry, tls};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ostiary's api: the TLS endpoints of osqueryd.
#[derive(Debug, clap::Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    settings: settings::SettingsArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tls::install_provider();
    let settings: ostiary_api::Settings = settings::load(&Arguments::parse().settings)?;
    telemetry::start(&settings.log)?;
    ostiary_api::serve(settings, shutdown::on_signal()?).await
}
