//! What development and tests need around Ostiary and nobody ships: a private Postgres and Redis, a certificate authority, a mail
//! catcher, and the supervisor behind `script/server`.
//!
//! It knows none of our other crates: it starts their binaries and speaks to them as an operator would. Nothing here touches a
//! Postgres or a Redis that it did not start.

pub mod certificates;
pub mod mail;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod s3;
pub mod server;
pub mod services;

use anyhow::Context as _;

/// A TCP port of the loopback interface that is free at this moment.
///
/// # Errors
/// No port is free.
pub fn free_port() -> anyhow::Result<u16> {
    let listener =
        std::net::TcpListener::bind("127.0.0.1:0").context("no port is free on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Random bytes as hexadecimal digits.
#[must_use]
pub fn random_hex(bytes: usize) -> String {
    use rand::TryRngCore as _;
    let mut buffer = vec![0; bytes];
    rand::rngs::OsRng
        .try_fill_bytes(&mut buffer)
        .expect("the operating system has randomness");
    hex::encode(buffer)
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_private(path: &std::path::Path, content: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = path.with_extension("draft");
    let written = (|| {
        let _ = std::fs::remove_file(&draft);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(content)?;
        std::fs::rename(&draft, path)
    })();
    written.with_context(|| format!("{} cannot be written", path.display()))
}
