//! A private S3-compatible storage: moto's server (PyPI), in memory, on a free port of 127.0.0.1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::process::{Process, Recipe};

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
        let endpoint = format!("http://127.0.0.1:{port}");
        let process = Recipe::new("moto", command, &log)
            .start_server(async || reqwest::get(&endpoint).await.is_ok())
            .await?;
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

    /// The objects of a bucket, at most a thousand, by their names.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn objects(&self, bucket: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        // moto wants a signature, and compares it with nothing.
        let signature = "AWS4-HMAC-SHA256 Credential=id/20000101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any";
        let client = reqwest::Client::builder().build()?;
        let get = async |path: &str| {
            let url = format!("{}/{bucket}{path}", self.endpoint);
            let request = client.get(url).header("Authorization", signature);
            request.send().await?.error_for_status()?.bytes().await
        };
        let list = String::from_utf8(get("?list-type=2").await?.to_vec())?;
        let mut objects = Vec::new();
        let names = list.split("<Key>").skip(1);
        for name in names.filter_map(|rest| rest.split("</Key>").next()) {
            let bytes = get(&format!("/{name}")).await?;
            objects.push((name.to_owned(), bytes.to_vec()));
        }
        Ok(objects)
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
