//! `ostiary-dev`: what `script/server` and `script/test` call once everything is built.

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Private servers for developing and testing Ostiary", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything with a simulated fleet until it is stopped (script/server).
    Server(ostiary_dev::server::Choices),
    /// Starts a throw-away Postgres and Redis, runs a command that finds them in OSTIARY_TEST_DATABASE_URL and
    /// OSTIARY_TEST_REDIS_URL, and stops them (script/test).
    Services {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

// One thread: `setpriv --pdeathsig` ties our children to the thread that starts them, and this one lives as long as we do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Server(choices) => ostiary_dev::server::run(choices).await,
        Command::Services { command } => {
            let code = ostiary_dev::services::run(&command).await?;
            std::process::exit(code);
        }
    }
}
