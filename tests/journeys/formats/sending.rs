//! How requests are put on the wire: in the many ways of clients and networks.

use std::process::Stdio;
use std::time::Duration;

use ostiary_tests::{Answer, PATIENCE, Wire, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::case::How;

/// The connections of one node.
pub(super) struct Sender<'w> {
    world: &'w World,
    wire: Wire,
    kept: Option<TlsStream<TcpStream>>,
}

/// A request, taken apart.
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl<'w> Sender<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        Self {
            world,
            wire: world.wire(),
            kept: None,
        }
    }

    /// Sends it, and gives what came back; each answer if it is sent twice.
    pub(super) async fn send(&mut self, request: &Request, how: How) -> Vec<Option<Answer>> {
        match how {
            How::Alone => vec![self.alone(request, false).await],
            How::Politely => vec![self.alone(request, true).await],
            How::Twice => {
                let (one, two) =
                    tokio::join!(self.alone(request, false), self.alone(request, false));
                vec![one, two]
            }
            How::Kept => vec![self.kept(request).await],
            How::Cut => {
                self.cut(request).await;
                vec![None]
            }
            How::Drip(pieces) => vec![self.drip(request, pieces).await],
            How::IpName => vec![self.by_ip_name(request).await],
        }
    }

    async fn alone(&self, request: &Request, politely: bool) -> Option<Answer> {
        let mut stream = self.wire.connect().await.ok()?;
        let answer = converse(&mut stream, request).await;
        if politely {
            let _ = stream.shutdown().await;
        }
        // Else the connection just ends, as osqueryd's do.
        answer.map(|(answer, _)| answer)
    }

    async fn kept(&mut self, request: &Request) -> Option<Answer> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.wire.connect().await.ok()?,
        };
        let (answer, stays_open) = converse(&mut stream, request).await?;
        if stays_open {
            self.kept = Some(stream);
        }
        Some(answer)
    }

    async fn cut(&self, request: &Request) {
        let mut stream = self.wire.connect().await.expect("the api listens");
        let half = &request.body[..request.body.len() / 2];
        stream.write_all(request.head.as_bytes()).await.unwrap();
        stream.write_all(half).await.unwrap();
        stream.flush().await.unwrap();
    }

    async fn drip(&self, request: &Request, pieces: u32) -> Option<Answer> {
        let (mut reader, mut writer) = tokio::io::split(self.wire.connect().await.ok()?);
        let write = async {
            let _ = writer.write_all(request.head.as_bytes()).await;
            let size = request.body.len().div_ceil(pieces as usize);
            for piece in request.body.chunks(size) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let _ = writer.write_all(piece).await;
                let _ = writer.flush().await;
            }
            std::future::pending::<()>().await;
        };
        // The answer may come before the end of the body.
        tokio::select! {
            answer = read_answer(&mut reader) => answer.map(|(answer, _)| answer),
            () = write => None,
            () = tokio::time::sleep(PATIENCE) => None,
        }
    }

    /// As osqueryd does with an IP address in `--tls_hostname`: it stands in the ClientHello as if it were a name, which rustls
    /// refuses to write; so this is OpenSSL, as osqueryd uses.
    async fn by_ip_name(&self, request: &Request) -> Option<Answer> {
        let api = self.world.api;
        let mut client = tokio::process::Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-connect",
                &api.to_string(),
            ])
            .args(["-servername", &api.ip().to_string(), "-CAfile"])
            .arg(&self.world.certificates.ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut input = client.stdin.take().expect("it was asked for");
        input.write_all(request.head.as_bytes()).await.ok()?;
        input.write_all(&request.body).await.ok()?;
        let mut output = client.stdout.take().expect("it was asked for");
        let answer = tokio::time::timeout(PATIENCE, read_answer(&mut output)).await;
        drop(input);
        let _ = client.kill().await;
        answer.ok()?.map(|(answer, _)| answer)
    }
}

/// Writes a request and reads its answer meanwhile: the other side may answer and close before it has taken everything. With the
/// answer comes whether the connection stays open.
async fn converse(stream: &mut TlsStream<TcpStream>, request: &Request) -> Option<(Answer, bool)> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let _ = writer.write_all(request.head.as_bytes()).await;
        let _ = writer.write_all(&request.body).await;
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = read_answer(&mut reader) => answer,
        () = write => None,
        () = tokio::time::sleep(PATIENCE) => None,
    }
}

async fn read_answer(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(Answer, bool)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .and_then(|length| length.trim().parse::<usize>().ok())?;
            if bytes.len() >= end + 4 + length {
                let stays_open = !head.contains("connection: close");
                return Some((Answer::parse(&bytes)?, stays_open));
            }
        }
        // What ends early is no answer.
        if reader.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
