//! Syslog (RFC 5424), over UDP, TCP or TLS.

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, begun, field, not_empty, wrong,
};
use crate::sinks::format::{FORMAT_HELP, FORMATS};
use crate::sinks::{Body, Format};
use crate::syslog::{SyslogMessage, Transport, send};
use crate::{SendError, Trust};

pub(super) const KIND: Kind = Kind::of::<Syslog>(
    "syslog",
    "Syslog",
    "Messages of RFC 5424, over UDP, TCP or TLS.",
    &[
        field("server", "Server", "Its host name.", Input::Text, true),
        begun(
            field(
                "port",
                "Port",
                "Usually 514 with UDP and TCP, 6514 with TLS.",
                Input::Number,
                true,
            ),
            "6514",
        ),
        field(
            "transport",
            "Transport",
            "Over UDP nobody says whether a message arrived.",
            Input::Choice(&[
                ("tls", "TLS"),
                ("tcp", "TCP, octet counting"),
                ("udp", "UDP"),
            ]),
            true,
        ),
        field("format", "Format", FORMAT_HELP, FORMATS, true),
        field(
            "ca_certificate",
            "CA certificate",
            "PEM, if the server's is not publicly trusted.",
            Input::LongText,
            false,
        ),
    ],
);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
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
    format: Format,
    #[serde(default)]
    ca_certificate: String,
}

impl Syslog {
    fn transport(&self) -> Result<Transport, SettingsError> {
        Ok(match self.transport {
            By::Udp => Transport::Udp,
            By::Tcp => Transport::Tcp,
            By::Tls => Transport::Tls(
                Trust::from_pem(&self.ca_certificate)
                    .map_err(|problem| wrong("ca_certificate", problem))?,
            ),
        })
    }

    fn message(&self, record: &Record) -> Option<String> {
        let severity = match &record.body {
            Body::Status { severity, .. } => match severity {
                0 => 6,
                1 => 4,
                2 => 3,
                _ => 2,
            },
            Body::Finding { .. } => 4,
            _ => 6,
        };
        let message = SyslogMessage {
            severity,
            time: record.occurred_at,
            host: record.host(),
            kind: record.type_name(),
            text: &self.format.line(record)?,
        };
        Some(message.to_text())
    }
}

impl Check for Syslog {
    fn check(&self) -> Result<(), SettingsError> {
        not_empty("server", &self.server)?;
        self.transport().map(drop)
    }
}

#[async_trait]
impl Sink for Syslog {
    fn summary(&self) -> String {
        let by = match self.transport {
            By::Tls => "TLS",
            By::Tcp => "TCP",
            By::Udp => "UDP",
        };
        format!("syslog at {}:{} by {by}", self.server, self.port)
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let transport = self.transport().map_err(SendError::rejected)?;
        let messages: Vec<String> = records
            .iter()
            .filter_map(|record| self.message(record))
            .collect();
        let connector = &way.outbound.connector;
        send(connector, &self.server, self.port, &transport, &messages)
            .await
            .map(Taken::all)
    }
}
