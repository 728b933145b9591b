//! Logs of our own processes: where they go and what they say.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// Settings `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// How a line looks.
    pub format: Format,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn start(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true)
        // Colours are for people, not for files.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let started = match options.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}
