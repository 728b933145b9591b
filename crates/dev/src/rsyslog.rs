//! A private rsyslog that takes messages over TLS (Debian's rsyslog and rsyslog-gnutls), on a free port of 127.0.0.1, and writes what
//! they say into a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::certificates::Certificates;
use crate::process::{Process, Recipe, find_program};

/// A running server.
#[derive(Debug)]
pub struct Rsyslog {
    process: Process,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    received: PathBuf,
}

impl Rsyslog {
    /// Starts a server with these certificates that keeps everything in `folder`.
    ///
    /// # Errors
    /// rsyslogd is not installed, or does not start; the message holds its last words.
    pub async fn start(folder: &Path, certificates: &Certificates) -> anyhow::Result<Self> {
        let port = crate::free_port()?;
        let received = folder.join("syslog.received");
        let settings = folder.join("rsyslog.conf");
        // The longest message is 8 KiB by itself.
        let text = format!(
            r#"global(workDirectory="{folder}" maxMessageSize="256k" defaultNetstreamDriver="gtls"
    defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="said" type="string" string="%hostname% %programname% %msgid% %msg%\n")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{received}" template="said")
"#,
            folder = folder.display(),
            ca = certificates.ca.display(),
            certificate = certificates.certificate.display(),
            key = certificates.private_key.display(),
            received = received.display(),
        );
        std::fs::write(&settings, text)?;
        let program = find_program("rsyslogd")?;
        let pid = folder.join("rsyslog.pid");
        let (settings, pid) = (settings.display().to_string(), pid.display().to_string());
        let command = [program.as_str(), "-n", "-f", &settings, "-i", &pid];
        let log = folder.join("rsyslog.log");
        let process = Recipe::new("rsyslogd", command.map(String::from).into(), &log)
            .start_server(async || {
                let address = ("127.0.0.1", port);
                tokio::net::TcpStream::connect(address).await.is_ok()
            })
            .await?;
        Ok(Self {
            process,
            port,
            received,
        })
    }

    /// The lines so far, `<host> <program> <kind> <text>` each, without one that is half written.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.received).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.process
            .stop(Signal::KILL, Duration::from_secs(5))
            .await;
    }
}
