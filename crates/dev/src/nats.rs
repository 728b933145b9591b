//! A private NATS server with JetStream (Debian's nats-server), on a free port of 127.0.0.1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::process::{Process, Recipe, wait_until};

/// A running server.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Nats {
    /// Starts a server that keeps its streams and its log in `folder`. With a token, clients must name it.
    ///
    /// # Errors
    /// nats-server is not installed, or does not start; the message holds its last words.
    pub async fn start(folder: &Path, token: &str) -> anyhow::Result<Self> {
        let port = crate::free_port()?;
        let log = folder.join("nats.log");
        let program = program()?.to_string_lossy().into_owned();
        let (port_text, streams) = (port.to_string(), folder.join("streams"));
        let streams = streams.to_string_lossy().into_owned();
        let mut command: Vec<String> = [
            program.as_str(),
            "--jetstream",
            "--addr",
            "127.0.0.1",
            "--port",
            &port_text,
            "--store_dir",
            &streams,
        ]
        .map(String::from)
        .into();
        if !token.is_empty() {
            command.extend(["--auth".to_owned(), token.to_owned()]);
        }
        let mut process = Recipe::new("nats", command, &log).start()?;
        let ready = wait_until("nats answers", Duration::from_secs(180), async || {
            let address = ("127.0.0.1", port);
            matches!(process.ended(), Ok(Some(_)))
                || tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        if ready.is_err() || process.ended()?.is_some() {
            bail!(
                "nats-server does not start; the end of {}:\n{}",
                log.display(),
                process.last_words()
            );
        }
        Ok(Self { process, port })
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.process
            .stop(Signal::KILL, Duration::from_secs(5))
            .await;
    }
}

/// In PATH, else where Debian puts it, which is in nobody's PATH but root's.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nats-server"))
        .find(|program| program.is_file())
        .context("nats-server is not installed: script/bootstrap --tests installs it")
}
