//! A web server that takes alerts, or does not, as a script says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is answered to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status line and perhaps headers, each with its line end: `503 Service Unavailable\r\nRetry-After: 2\r\n`.
    Say(String),
    /// Nothing, and the connection is kept.
    Silence,
}

impl Reply {
    /// A bare status.
    #[must_use]
    pub fn status(line: &str) -> Self {
        Self::Say(format!("{line}\r\n"))
    }
}

#[derive(Debug, Default)]
struct State {
    replies: VecDeque<Reply>,
    heard: Vec<Value>,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Gives these replies in turn, then `202 Accepted` to everybody.
    ///
    /// # Panics
    /// It cannot listen on the loopback interface.
    pub async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(Mutex::new(State {
            replies: replies.into(),
            heard: Vec::new(),
        }));
        let its_state = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&its_state)));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bodies of all requests so far, whatever was answered.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.heard.clone()
    }
}

async fn converse(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    let body = loop {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(body) = body_of(&request) {
            break body;
        }
    };
    let reply = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.heard.push(body);
        let next = state.replies.pop_front();
        next.unwrap_or_else(|| Reply::status("202 Accepted"))
    };
    match reply {
        Reply::Say(head) => {
            let answer = format!("HTTP/1.1 {head}Content-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        // Until the client has enough of it.
        Reply::Silence => while matches!(stream.read_buf(&mut request).await, Ok(1..)) {},
    }
}

/// The body as JSON, once it has come as its length promises.
fn body_of(request: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(request).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length: usize = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().ok())?
    })?;
    (body.len() >= length).then(|| serde_json::from_str(body).unwrap_or(Value::Null))
}
