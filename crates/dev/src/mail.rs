//! A small mail catcher: an SMTP server (RFC 5321) that takes every message and writes it to a folder as an `.eml` file.
//!
//! Beside plain SMTP it can offer STARTTLS or speak TLS from the start, and demand a password, so that tests hold real
//! conversations. It relays nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const MAX_MESSAGE_BYTES: u64 = 10 * 1024 * 1024;
const MAX_LINE_BYTES: u64 = 8 * 1024;

/// How clients must speak to it.
#[derive(Clone, Default)]
pub struct Options {
    /// Certificate and key for STARTTLS or TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS from the first byte, rather than by STARTTLS.
    pub implicit_tls: bool,
    /// The user name and password that it wants before a message.
    pub login: Option<(String, String)>,
}

/// A running catcher; it ends when it is dropped.
#[derive(Debug)]
pub struct MailCatcher {
    address: SocketAddr,
    folder: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl MailCatcher {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address is taken or the folder cannot be made.
    pub async fn start(
        listen: SocketAddr,
        folder: &Path,
        options: Options,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("{listen} cannot be listened on"))?;
        let address = listener.local_addr()?;
        let target = folder.to_owned();
        let task = tokio::spawn(async move {
            // A failed accept (too many open files, a client that is gone already) concerns one client only.
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let (target, options) = (target.clone(), options.clone());
                    tokio::spawn(async move {
                        let limit = std::time::Duration::from_secs(60);
                        let _ =
                            tokio::time::timeout(limit, converse(stream, &target, &options)).await;
                    });
                }
            }
        });
        Ok(Self {
            address,
            folder: folder.to_owned(),
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The messages so far, oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn messages(&self) -> anyhow::Result<Vec<String>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        files.sort();
        files
            .iter()
            .map(|file| Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned()))
            .collect()
    }
}

impl Drop for MailCatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(stream: TcpStream, folder: &Path, options: &Options) -> anyhow::Result<()> {
    let acceptor = options.tls.clone().map(TlsAcceptor::from);
    match acceptor {
        Some(acceptor) if options.implicit_tls => {
            let stream = acceptor.accept(stream).await?;
            Session::new(folder, options, true)
                .run(&mut BufReader::new(stream), true)
                .await?;
        }
        acceptor => {
            let mut session = Session::new(folder, options, false);
            let mut plain = BufReader::new(stream);
            if session.run(&mut plain, true).await? == End::StartTls {
                // Whatever a client sent after STARTTLS without waiting is dropped with the buffer, as RFC 3207 demands.
                let acceptor = acceptor.context("STARTTLS was only offered with a certificate")?;
                let stream = acceptor.accept(plain.into_inner()).await?;
                let mut session = Session::new(folder, options, true);
                session.run(&mut BufReader::new(stream), false).await?;
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum End {
    Closed,
    StartTls,
}

struct Session<'a> {
    folder: &'a Path,
    options: &'a Options,
    encrypted: bool,
    logged_in: bool,
    sender: Option<String>,
    recipients: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(folder: &'a Path, options: &'a Options, encrypted: bool) -> Self {
        Self {
            folder,
            options,
            encrypted,
            logged_in: false,
            sender: None,
            recipients: Vec::new(),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
        greet: bool,
    ) -> anyhow::Result<End> {
        if greet {
            say(stream, "220 localhost catches mail").await?;
        }
        while let Some(line) = read_line(stream).await? {
            let verb = line
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.introduce(stream).await?,
                "HELO" => say(stream, "250 localhost").await?,
                "STARTTLS" if self.options.tls.is_some() && !self.encrypted => {
                    say(stream, "220 go ahead").await?;
                    return Ok(End::StartTls);
                }
                "AUTH" => self.log_in(stream, &line).await?,
                "MAIL" if !self.may_send() => {
                    say(stream, "530 5.7.0 authentication required").await?;
                }
                "MAIL" => {
                    self.sender = Some(line);
                    self.recipients.clear();
                    say(stream, "250 ok").await?;
                }
                "RCPT" if self.sender.is_none() => say(stream, "503 5.5.1 MAIL first").await?,
                "RCPT" => {
                    self.recipients.push(line);
                    say(stream, "250 ok").await?;
                }
                "DATA" if self.recipients.is_empty() => say(stream, "503 5.5.1 RCPT first").await?,
                "DATA" => self.take_message(stream).await?,
                "RSET" => {
                    self.sender = None;
                    self.recipients.clear();
                    say(stream, "250 ok").await?;
                }
                "NOOP" => say(stream, "250 ok").await?,
                "QUIT" => {
                    say(stream, "221 bye").await?;
                    return Ok(End::Closed);
                }
                _ => say(stream, "502 5.5.2 not known here").await?,
            }
        }
        Ok(End::Closed)
    }

    fn may_send(&self) -> bool {
        self.logged_in || self.options.login.is_none()
    }

    async fn introduce<S: AsyncWrite + Unpin>(&self, stream: &mut S) -> anyhow::Result<()> {
        let mut lines = vec![
            "localhost".to_owned(),
            "8BITMIME".into(),
            "SMTPUTF8".into(),
            format!("SIZE {MAX_MESSAGE_BYTES}"),
        ];
        if self.options.tls.is_some() && !self.encrypted {
            lines.push("STARTTLS".into());
        }
        if self.options.login.is_some() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        let last = lines.len() - 1;
        for (index, line) in lines.iter().enumerate() {
            say(
                stream,
                &format!("250{}{line}", if index == last { ' ' } else { '-' }),
            )
            .await?;
        }
        Ok(())
    }

    async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
        line: &str,
    ) -> anyhow::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let given = match (mechanism.as_str(), initial) {
            ("PLAIN", Some(response)) => plain_login(&response),
            ("PLAIN", None) => plain_login(&ask(stream, "").await?),
            ("LOGIN", _) => {
                let name = ask(stream, "VXNlcm5hbWU6").await?;
                let password = ask(stream, "UGFzc3dvcmQ6").await?;
                decode(&name).zip(decode(&password))
            }
            _ => return say(stream, "504 5.5.4 mechanism not known").await,
        };
        self.logged_in = given.is_some() && given == self.options.login;
        let answer = if self.logged_in {
            "235 2.7.0 welcome"
        } else {
            "535 5.7.8 wrong user name or password"
        };
        say(stream, answer).await
    }

    async fn take_message<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
    ) -> anyhow::Result<()> {
        say(stream, "354 end with a dot on a line of its own").await?;
        let mut message = Vec::new();
        loop {
            let mut line = Vec::new();
            let left = MAX_MESSAGE_BYTES.saturating_sub(message.len() as u64);
            anyhow::ensure!(left > 0, "the message is too large");
            anyhow::ensure!(
                (&mut *stream)
                    .take(left)
                    .read_until(b'\n', &mut line)
                    .await?
                    > 0,
                "cut off in a message"
            );
            let text = line
                .strip_suffix(b"\r\n")
                .or(line.strip_suffix(b"\n"))
                .unwrap_or(&line);
            if text == b"." {
                break;
            }
            message.extend_from_slice(text.strip_prefix(b".").unwrap_or(text));
            message.extend_from_slice(b"\r\n");
        }
        self.sender = None;
        self.recipients.clear();
        store(self.folder, &message)?;
        say(stream, "250 2.0.0 caught").await
    }
}

/// The name of a file tells its order; a reader never sees half a message.
fn store(folder: &Path, message: &[u8]) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let at = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    let name = format!("{at:015}-{:05}", NEXT.fetch_add(1, Ordering::Relaxed));
    let draft = folder.join(format!("{name}.part"));
    std::fs::write(&draft, message)?;
    std::fs::rename(&draft, folder.join(format!("{name}.eml")))?;
    Ok(())
}

fn decode(text: &str) -> Option<String> {
    use base64::Engine as _;
    String::from_utf8(
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?,
    )
    .ok()
}

fn plain_login(response: &str) -> Option<(String, String)> {
    let text = decode(response)?;
    let mut parts = text.split('\0').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    challenge: &str,
) -> anyhow::Result<String> {
    say(stream, &format!("334 {challenge}")).await?;
    read_line(stream).await?.context("cut off while logging in")
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, line: &str) -> anyhow::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}

async fn read_line<S: AsyncRead + Unpin>(
    stream: &mut BufReader<S>,
) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    let read = (&mut *stream)
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .await?;
    anyhow::ensure!(
        read == 0 || line.ends_with(b"\n"),
        "the line is too long or was cut off"
    );
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
}
