//! Alerts as syslog messages (RFC 5424) with structured data; how they travel, and what a delivery is worth that nobody answers,
//! stands in `crate::syslog`.
//!
//! Everything that nodes say stands on one line; in structured data quotes, backslashes and brackets are escaped.

use async_trait::async_trait;
use chrono::SecondsFormat;
use serde::Deserialize;

use super::field::CA_CERTIFICATE;
use super::{Check, Destination, Field, Input, Kind, SettingsError};
use crate::syslog::{Transport, send};
use crate::{Message, Outbound, SendError, Told, Trust, one_line};

pub(super) const KIND: Kind = Kind::of::<Syslog>(
    "syslog",
    "Syslog",
    "A syslog server (RFC 5424) over UDP, TCP or TLS.",
    &[
        Field::text("server", "Server", "Its host name or address."),
        Field::new(
            "port",
            "Port",
            "Usually 6514 over TLS, 514 or 601 otherwise.",
            Input::Number,
        )
        .or("6514"),
        Field::new(
            "transport",
            "Transport",
            "Over UDP whatever is lost is lost.",
            Input::Choice(&[
                ("tls", "TLS"),
                ("tcp", "TCP, octet counting"),
                ("udp", "UDP"),
            ]),
        ),
        Field::new(
            "facility",
            "Facility",
            "",
            Input::Choice(&[
                ("local0", "local0"),
                ("local1", "local1"),
                ("local2", "local2"),
                ("local3", "local3"),
                ("local4", "local4"),
                ("local5", "local5"),
                ("local6", "local6"),
                ("local7", "local7"),
                ("user", "user"),
                ("daemon", "daemon"),
                ("auth", "auth"),
                ("authpriv", "authpriv"),
            ]),
        ),
        CA_CERTIFICATE,
    ],
);

/// The private enterprise number that RFC 5612 sets aside for documentation: we have none of our own.
const STRUCTURED_DATA_ID: &str = "ostiary@32473";
/// What every receiver over UDP should take (RFC 5426 §3.2), and what we send over a stream at most.
const MOST_BY_UDP: usize = 2048;
const MOST_BY_STREAM: usize = 8192;
/// Characters of one value of the structured data.
const MOST_OF_A_VALUE: usize = 150;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum By {
    Tls,
    Tcp,
    Udp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Syslog {
    server: String,
    port: u16,
    transport: By,
    facility: String,
    #[serde(default)]
    ca_certificate: String,
}

impl Syslog {
    /// RFC 5424 §6.2.1.
    fn facility(&self) -> Option<u8> {
        match self.facility.as_str() {
            "user" => Some(1),
            "daemon" => Some(3),
            "auth" => Some(4),
            "authpriv" => Some(10),
            local => {
                let number: u8 = local.strip_prefix("local")?.parse().ok()?;
                (number < 8).then_some(16 + number)
            }
        }
    }

    fn trust(&self) -> Result<Trust, SettingsError> {
        Trust::from_pem(&self.ca_certificate)
            .map_err(|problem| SettingsError::of("ca_certificate", problem))
    }

    fn way(&self) -> Result<Transport, SettingsError> {
        Ok(match self.transport {
            By::Udp => Transport::Udp,
            By::Tcp => Transport::Tcp,
            By::Tls => Transport::Tls(self.trust()?),
        })
    }
}

impl Check for Syslog {
    fn check(&self) -> Result<(), SettingsError> {
        if self.server.trim().is_empty() {
            return Err(SettingsError::of("server", "the server is missing"));
        }
        if self.facility().is_none() {
            return Err(SettingsError::of("facility", "there is no such facility"));
        }
        self.trust().map(drop)
    }
}

#[async_trait]
impl Destination for Syslog {
    fn summary(&self) -> String {
        let how = match self.transport {
            By::Tls => "TLS",
            By::Tcp => "TCP",
            By::Udp => "UDP",
        };
        one_line(
            &format!(
                "{}:{} over {how}, {}",
                self.server.trim(),
                self.port,
                self.facility
            ),
            200,
        )
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let facility = self
            .facility()
            .ok_or_else(|| SendError::refused("there is no such facility"))?;
        let most = if self.transport == By::Udp {
            MOST_BY_UDP
        } else {
            MOST_BY_STREAM
        };
        let way = self.way().map_err(SendError::refused)?;
        let line = [line(facility, message, most)];
        outbound.note(&line[0]);
        send(
            &outbound.connector,
            self.server.trim(),
            self.port,
            &way,
            &line,
        )
        .await
    }
}

/// One message of at most so many bytes.
fn line(facility: u8, message: &Message, most: usize) -> String {
    let (alert, told) = (&message.alert, Told::of(message));
    let severity = match alert.rule.severity.as_str() {
        "critical" => 2,
        "high" => 3,
        "medium" => 4,
        "low" => 5,
        _ => 6,
    };
    let priority = facility * 8 + severity;
    let time = message.now.to_rfc3339_opts(SecondsFormat::Micros, true);
    // We speak of other machines; what this one is called is best said by the name under which people reach it.
    let host = reqwest::Url::parse(&alert.url).ok();
    let host = host.as_ref().and_then(|url| url.host_str()).unwrap_or("-");
    let data: String = [
        ("delivery", message.delivery_id.to_string()),
        ("finding", alert.finding_id.to_string()),
        ("kind", message.kind.as_str().to_owned()),
        ("severity", alert.rule.severity.clone()),
        ("rule", alert.rule.name.clone()),
        ("node", alert.node.name.clone()),
        ("entity", alert.entity.clone()),
        ("query", alert.query_name.clone()),
        ("url", alert.url.clone()),
    ]
    .into_iter()
    .map(|(name, value)| format!(" {name}=\"{}\"", escape(&one_line(&value, MOST_OF_A_VALUE))))
    .collect();
    let event = message.event();
    let text = if message.templates.text.trim().is_empty() {
        format!("{}: {}", told.title, one_line(&alert.entity, 1000))
    } else {
        one_line(&told.text, MOST_BY_STREAM)
    };
    let mut line = format!(
        "<{priority}>1 {time} {host} ostiary - {event} [{STRUCTURED_DATA_ID}{data}] {text}"
    );
    line.truncate(line.floor_char_boundary(most));
    line
}

/// RFC 5424 §6.3.3.
fn escape(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_checked_by_their_field() {
        let read = |changes: serde_json::Value| {
            let mut settings = json!({"server": "log.example.com", "port": 6514, "transport": "tls", "facility": "local0"});
            for (key, value) in changes.as_object().unwrap() {
                settings[key] = value.clone();
            }
            KIND.read(&settings)
                .map(|syslog| syslog.summary())
                .map_err(|error| error.field)
        };
        assert_eq!(
            read(json!({})),
            Ok("log.example.com:6514 over TLS, local0".into())
        );
        assert_eq!(read(json!({"server": " "})), Err("server"));
        assert_eq!(read(json!({"facility": "local8"})), Err("facility"));
        assert_eq!(read(json!({"ca_certificate": "x"})), Err("ca_certificate"));
        assert_eq!(read(json!({"transport": "pigeon"})), Err("form"));
    }

    #[test]
    fn a_line_is_never_longer_than_it_may_be_and_ends_with_a_whole_letter() {
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut message = Message::sample(crate::Templates::default(), now);
        message.alert.entity = "ä]\"\\".repeat(5000);
        for most in [MOST_BY_UDP, MOST_BY_STREAM] {
            let line = line(16, &message, most);
            assert!(line.len() <= most && line.contains("] [high] "), "{line}");
        }
    }
}
