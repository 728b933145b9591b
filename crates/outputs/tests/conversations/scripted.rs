//! Servers that misbehave by script, for what no well-behaved server does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a scripted server does at a point of the conversation.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// It says this line.
    Say(&'static str),
    /// It says nothing more, and keeps the connection.
    Hang,
    /// It closes the connection.
    Close,
}

/// A scripted server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// What clients said: the lines of SMTP, or whole HTTP requests.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    async fn start<F>(
        converse: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let ears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&ears)));
            }
        });
        Self {
            address,
            heard,
            task,
        }
    }

    /// A mail server that behaves, but for what `script` says to lines that begin so. `""` is the greeting, `"."` the end of a mail.
    pub(crate) async fn smtp(script: &'static [(&'static str, Step)]) -> Self {
        Self::start(move |stream, heard| smtp(stream, heard, script)).await
    }

    /// A web server that answers every request with these bytes, then hangs or closes.
    pub(crate) async fn http(answer: impl Into<Vec<u8>>, then: Step) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |stream, heard| http(stream, heard, Arc::clone(&answer), then)).await
    }

    /// A web server that gives these answers in turn, then none.
    pub(crate) async fn http_in_turn(answers: Vec<String>) -> Self {
        let answers = Mutex::new(std::collections::VecDeque::from(answers));
        Self::start(move |stream, heard| {
            let answer = answers.lock().unwrap().pop_front().unwrap_or_default();
            http(stream, heard, Arc::new(answer.into_bytes()), Step::Close)
        })
        .await
    }
}

async fn smtp(
    stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    script: &'static [(&'static str, Step)],
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut in_mail = false;
    loop {
        let usual = match line.get(..4).unwrap_or(&line) {
            "" => "220 ready",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        let is_scripted = |start: &str| {
            if start.is_empty() || start == "." {
                line == start
            } else {
                line.starts_with(start)
            }
        };
        let scripted = script.iter().find(|(start, _)| is_scripted(start));
        match scripted.map_or(Step::Say(usual), |(_, step)| *step) {
            Step::Say(text) => {
                in_mail = line.starts_with("DATA") && text.starts_with("354");
                stream.write_all(format!("{text}\r\n").as_bytes()).await?;
            }
            Step::Hang => std::future::pending().await,
            Step::Close => return Ok(()),
        }
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            line.truncate(line.trim_end().len());
            heard.lock().unwrap().push(line.clone());
            if !in_mail || line == "." {
                break;
            }
        }
    }
}

async fn http(
    mut stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    answer: Arc<Vec<u8>>,
    then: Step,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    heard.lock().unwrap().push(text);
    let written = stream.write_all(&answer).await;
    match then {
        Step::Hang => std::future::pending().await,
        _ => written,
    }
}

/// Has the body come as its length promises?
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}
