//! A private S3-compatible storage: moto's server (PyPI), in memory, on a free port of 127.0.0.1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::process::{Process, Recipe, wait_until};

/// A running server.
#[derive(Debug)]
pub struct S3 {
    process: Process,
    /// Its URL.
    pub endpoint: String,
}

impl S3 {
    /// Starts a server that logs into `folder`.
    ///
    /// # Errors
    /// moto is not installed, or does not start; the message holds its last words.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = crate::free_port()?;
        let log = folder.join("s3.log");
        let program = program()?.to_string_lossy().into_owned();
        let port_text = port.to_string();
        let command = [program.as_str(), "-H", "127.0.0.1", "-p", &port_text];
        let command = command.map(String::from).into();
        let mut process = Recipe::new("s3", command, &log).start()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let ready = wait_until("moto answers", Duration::from_secs(180), async || {
            matches!(process.ended(), Ok(Some(_))) || reqwest::get(&endpoint).await.is_ok()
        })
        .await;
        if ready.is_err() || process.ended()?.is_some() {
            bail!(
                "moto does not start; the end of {}:\n{}",
                log.display(),
                process.last_words()
            );
        }
        Ok(Self { process, endpoint })
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn make_bucket(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("{}/{name}", self.endpoint);
        let client = reqwest::Client::builder().build()?;
        client.put(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.process
            .stop(Signal::KILL, Duration::from_secs(5))
            .await;
    }
}

/// `OSTIARY_MOTO`, else where script/bootstrap puts it.
fn program() -> anyhow::Result<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.local/moto/bin/moto_server");
    let program = std::env::var_os("OSTIARY_MOTO").map_or(installed, PathBuf::from);
    program
        .canonicalize()
        .with_context(|| format!("{} is missing: run script/bootstrap", program.display()))
}
