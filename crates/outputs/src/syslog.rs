//! Messages of syslog (RFC 5424), and how they travel: datagrams (RFC 5426), or frames with their length in front over TCP (RFC 6587)
//! and TLS (RFC 5425).
//!
//! Syslog knows no answer. Over TCP and TLS we therefore say that nothing more comes and wait until the other side hangs up, which it
//! does after it has read everything; a connection that breaks before that is a failure. A datagram is sent, and nobody knows more.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{Connector, SendError, Trust};

/// RFC 5426 asks receivers to take at least 480 bytes and recommends 2,048; this is what common ones take.
const LONGEST_DATAGRAM: usize = 8192;
/// How long the other side may take to read what it has been sent.
const FAREWELL: Duration = Duration::from_secs(10);

/// `local0`.
pub(crate) const FACILITY: u8 = 16;

/// One message, before it is written.
pub(crate) struct SyslogMessage<'a> {
    /// 0 emergency … 7 debug.
    pub(crate) severity: u8,
    pub(crate) time: DateTime<Utc>,
    pub(crate) host: &'a str,
    /// What it is about: `result`, `finding`, …
    pub(crate) kind: &'a str,
    pub(crate) text: &'a str,
}

impl SyslogMessage<'_> {
    /// As RFC 5424 §6 has it, without structured data. Nothing in the text can begin another message: control characters, line ends
    /// above all, become blanks.
    pub(crate) fn to_text(&self) -> String {
        let priority = u16::from(FACILITY) * 8 + u16::from(self.severity.min(7));
        let time = self.time.to_rfc3339_opts(SecondsFormat::Micros, true);
        let host = name(self.host, 255);
        let kind = name(self.kind, 32);
        let text: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!("<{priority}>1 {time} {host} ostiary - {kind} - {text}")
    }
}

/// A field of the header: printable ASCII without blanks; `-` for nothing.
fn name(text: &str, longest: usize) -> String {
    let clean: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(longest)
        .collect();
    if clean.is_empty() {
        "-".to_owned()
    } else {
        clean
    }
}

/// How messages travel.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls(Trust),
}

/// Sends messages in their order. Returns what can be said of it.
///
/// # Errors
/// They did not arrive, or not surely.
pub(crate) async fn send(
    connector: &Connector,
    host: &str,
    port: u16,
    transport: &Transport,
    messages: &[String],
) -> Result<String, SendError> {
    match transport {
        Transport::Udp => {
            let socket = connector.udp(host, port).await?;
            for message in messages {
                socket
                    .send(cut(message))
                    .await
                    .map_err(|error| SendError::retry(format!("{host}: {error}")))?;
            }
            Ok(format!("{} datagrams sent", messages.len()))
        }
        Transport::Tcp => {
            let stream = connector.tcp(host, port).await?;
            hand_over(stream, messages).await
        }
        Transport::Tls(trust) => {
            let stream = connector.tls(host, port, trust).await?;
            hand_over(stream, messages).await
        }
    }
}

/// The beginning that fits into a datagram, up to the end of a letter.
fn cut(message: &str) -> &[u8] {
    let end = (0..=message.len().min(LONGEST_DATAGRAM))
        .rev()
        .find(|at| message.is_char_boundary(*at));
    &message.as_bytes()[..end.unwrap_or(0)]
}

async fn hand_over<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    messages: &[String],
) -> Result<String, SendError> {
    let broken = |error| SendError::retry(format!("the connection broke: {error}"));
    let mut frames = Vec::new();
    for message in messages {
        frames.extend_from_slice(format!("{} ", message.len()).as_bytes());
        frames.extend_from_slice(message.as_bytes());
    }
    stream.write_all(&frames).await.map_err(broken)?;
    stream.shutdown().await.map_err(broken)?;
    let mut rest = [0; 256];
    let farewell = async {
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // rustls' word for a peer that hangs up without a good-bye of TLS, after it has read all.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
        }
    };
    match tokio::time::timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => Ok(format!("{} messages read", messages.len())),
        Ok(Err(error)) => Err(error),
        // It keeps the connection for itself, and nothing contradicts that it read them.
        Err(_) => Ok(format!("{} messages sent", messages.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, host: &str) -> String {
        SyslogMessage {
            severity: 4,
            time: "2026-11-21T09:30:05.25Z".parse().unwrap(),
            host,
            kind: "finding",
            text,
        }
        .to_text()
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        assert_eq!(
            message("{\"a\":\"é\"}", "web-1"),
            "<132>1 2026-11-21T09:30:05.250000Z web-1 ostiary - finding - {\"a\":\"é\"}"
        );
    }

    #[test]
    fn nothing_in_a_message_begins_another_one() {
        let text = message("one\n<0>1 - evil - - - two\r\n\0", "a b\nc\u{e9}");
        assert_eq!(
            text,
            "<132>1 2026-11-21T09:30:05.250000Z abc ostiary - finding - one <0>1 - evil - - - two   "
        );
        assert!(message("x", "").contains(" - ostiary - finding - x"));
    }

    #[test]
    fn a_datagram_ends_at_a_letter() {
        let long = format!("a{}", "é".repeat(LONGEST_DATAGRAM));
        let cut = cut(&long);
        assert_eq!(cut.len(), LONGEST_DATAGRAM - 1);
        assert!(std::str::from_utf8(cut).is_ok());
    }
}
