//! What development and tests need around Ostiary and nobody ships: a private Postgres and Redis, a certificate authority, a mail
//! catcher, and the supervisor behind `script/server`.
//!
//! It knows none of our other crates: it starts their binaries and speaks to them as an operator would. Nothing here touches a
//! Postgres or a Redis that it did not start.

pub mod certificates;
pub mod kafka;
pub mod mail;
pub mod nats;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod rsyslog;
pub mod s3;
pub mod server;
pub mod services;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

/// A TCP port of the loopback interface that is free at this moment. It stays so until it is used: nobody is given it twice by this
/// process, and it lies below those that the kernel gives to whoever asks for any port, outgoing connections above all.
///
/// # Errors
/// No port is free.
pub fn free_port() -> anyhow::Result<u16> {
    use rand::TryRngCore as _;
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let ports = ports_of_nobody();
    for _ in 0..10_000 {
        let random = rand::rngs::OsRng.try_next_u32()?;
        let nth = random as usize % ports.len();
        let port = ports.start + u16::try_from(nth).expect("there are fewer ports than that");
        // A set of numbers is whole after any panic.
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free on 127.0.0.1")
}

/// The ports from 15000 on that the kernel gives to nobody by itself.
fn ports_of_nobody() -> std::ops::Range<u16> {
    const FIRST: u16 = 15_000;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first_given = (text.unwrap_or_default().split_whitespace())
        .next()
        .and_then(|port| port.parse().ok());
    match first_given {
        Some(end) if end > FIRST + 1_000 => FIRST..end,
        // Linux' own default begins at 32768.
        _ => FIRST..32_768,
    }
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
