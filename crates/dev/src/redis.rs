//! A private Redis in a folder, on a free port of 127.0.0.1, with a password.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Process, Recipe, wait_until};

/// A running server.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    password: String,
}

impl Redis {
    /// Starts a server whose files lie in `folder`/redis. The same `port` and `password` may be asked for again after a restart.
    ///
    /// # Errors
    /// Redis is not installed, or does not start; the message holds its last words.
    pub async fn start(
        folder: &Path,
        port: Option<u16>,
        password: Option<String>,
    ) -> anyhow::Result<Self> {
        let data = folder.join("redis");
        std::fs::create_dir_all(&data)?;
        let password = password.unwrap_or_else(|| crate::random_hex(16));
        let port = match port {
            Some(port) => port,
            None => crate::free_port()?,
        };
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir \"{}\"\nrequirepass {password}\nappendonly yes\nappendfsync everysec\nsave \"\"\n\
             maxmemory-policy noeviction\n",
            data.display()
        );
        let file = folder.join("redis.conf");
        crate::write_private(&file, config.as_bytes())?;
        let log = folder.join("redis.log");
        let command = vec!["redis-server".into(), file.display().to_string()];
        let mut process = Recipe::new("redis", command, &log).start()?;
        let ready = wait_until("Redis answers", Duration::from_secs(180), async || {
            matches!(process.ended(), Ok(Some(_)))
                || call(port, &password, "PING")
                    .await
                    .is_ok_and(|answer| answer == "+PONG")
        })
        .await;
        if ready.is_err() || process.ended()?.is_some() {
            bail!(
                "Redis does not start (is redis-server installed? script/bootstrap does it); the end of {}:\n{}",
                log.display(),
                process.last_words()
            );
        }
        Ok(Self {
            process,
            port,
            password,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Its URL, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "redis://default:{}@127.0.0.1:{}/0",
            self.password, self.port
        )
    }

    /// Its port and password, to start it again at the same place.
    #[must_use]
    pub fn place(&self) -> (u16, String) {
        (self.port, self.password.clone())
    }

    /// Sends one command and returns the first line of the answer.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn call(&self, command: &str) -> anyhow::Result<String> {
        call(self.port, &self.password, command).await
    }

    /// Has it ended by itself? For a supervisor.
    ///
    /// # Errors
    /// The operating system does not know the process.
    pub fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Stops it.
    pub async fn stop(self) {
        self.process
            .stop(Signal::TERM, Duration::from_secs(60))
            .await;
    }
}

/// One inline command of Redis' protocol, after the password.
async fn call(port: u16, password: &str, command: &str) -> anyhow::Result<String> {
    let work = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(format!("AUTH {password}\r\n{command}\r\nQUIT\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(
            answer
                .lines()
                .nth(1)
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
        )
    };
    tokio::time::timeout(Duration::from_secs(60), work).await?
}
