//! Kafka: a message per line, keyed by node.

use async_trait::async_trait;
use kafka_protocol::records::Compression;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, begun, field, not_empty, wrong,
};
use crate::sinks::kafka::{Access, Address, Message, Topic};
use crate::{SendError, Trust};

pub(super) const KIND: Kind = Kind::of::<Kafka>(
    "kafka",
    "Kafka",
    "Messages of a topic, keyed by node, so that those of one keep their order.",
    &[
        field(
            "brokers",
            "Brokers",
            "Some of them, with commas between: kafka-1.example.com:9092, kafka-2.example.com:9092",
            Input::Text,
            true,
        ),
        begun(field("topic", "Topic", "", Input::Text, true), "ostiary"),
        field(
            "encryption",
            "Encryption",
            "",
            Input::Choice(&[("tls", "TLS"), ("none", "none")]),
            true,
        ),
        field(
            "username",
            "User name",
            "Told by SASL's PLAIN. Empty: nobody is asked who we are.",
            Input::Text,
            false,
        ),
        field("password", "Password", "", Input::Secret, false),
        field(
            "compression",
            "Compression",
            "",
            Input::Choice(&[("gzip", "gzip"), ("none", "none")]),
            true,
        ),
        field(
            "ca_certificate",
            "CA certificate",
            "PEM, if that of the brokers is not publicly trusted.",
            Input::LongText,
            false,
        ),
    ],
);

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
const USUAL_PORT: u16 = 9092;
/// Key of what is about no node.
const OWN_KEY: &str = "ostiary";

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Encryption {
    Tls,
    None,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compressed {
    Gzip,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kafka {
    brokers: String,
    topic: String,
    encryption: Encryption,
    username: Option<String>,
    password: Option<SecretString>,
    compression: Compressed,
    #[serde(default)]
    ca_certificate: String,
    #[serde(skip)]
    open: Option<Topic>,
}

impl Check for Kafka {
    fn check(&self) -> Result<(), SettingsError> {
        self.addresses()?;
        not_empty("topic", &self.topic)?;
        // As Kafka's own `Topic.validate`.
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.topic.len() > 249 || !self.topic.chars().all(is_legal) {
            return Err(wrong(
                "topic",
                "a topic is made of at most 249 letters, digits, \".\", \"-\" and \"_\"",
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(wrong("password", "a user name needs a password"));
        }
        self.access().map(drop)
    }
}

impl Kafka {
    fn addresses(&self) -> Result<Vec<Address>, SettingsError> {
        let problem = || wrong("brokers", "name brokers as host:port, with commas between");
        let read = |text: &str| {
            let (host, port) = match text.rsplit_once(':') {
                // The colons of an IPv6 address stand in brackets.
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (text, USUAL_PORT),
            };
            let is_host = !host.is_empty() && !host.contains(['/', ' ', '@']);
            is_host.then(|| Address {
                host: host.to_owned(),
                port,
            })
        };
        let parts = self.brokers.split(',').map(str::trim);
        let addresses: Option<Vec<Address>> =
            parts.filter(|part| !part.is_empty()).map(read).collect();
        let addresses = addresses.ok_or_else(problem)?;
        if addresses.is_empty() {
            return Err(problem());
        }
        Ok(addresses)
    }

    fn access(&self) -> Result<Access, SettingsError> {
        let trust = match self.encryption {
            Encryption::None => None,
            Encryption::Tls => Some(
                Trust::from_pem(&self.ca_certificate)
                    .map_err(|problem| wrong("ca_certificate", problem))?,
            ),
        };
        let login = self.username.clone().zip(self.password.clone());
        Ok(Access { trust, login })
    }
}

#[async_trait]
impl Sink for Kafka {
    fn summary(&self) -> String {
        let brokers: Vec<String> = (self.addresses().unwrap_or_default().iter())
            .map(ToString::to_string)
            .collect();
        format!("topic {} at {}", self.topic, brokers.join(", "))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let access = self.access().map_err(SendError::rejected)?;
        let addresses = self.addresses().map_err(SendError::rejected)?;
        let compression = match self.compression {
            Compressed::Gzip => Compression::Gzip,
            Compressed::None => Compression::None,
        };
        let messages: Vec<Message> = records.iter().map(message).collect();
        let connector = &way.outbound.connector;
        // Kept only if all went well: leaders change, and then the next attempt asks anew who they are.
        let open = self.open.take();
        let conversation = async {
            let mut topic = match open {
                Some(topic) => topic,
                None => Topic::find(connector, &access, &addresses, &self.topic).await?,
            };
            topic
                .produce(connector, &access, compression, &messages)
                .await?;
            Ok::<_, SendError>(topic)
        };
        let open = tokio::time::timeout(PATIENCE, conversation)
            .await
            .map_err(|_| SendError::retry("the brokers do not answer in time"))??;
        self.open = Some(open);
        Ok(Taken::all(format!(
            "{} messages acknowledged",
            records.len()
        )))
    }
}

fn message(record: &Record) -> Message {
    let node = record.node.as_ref();
    Message {
        key: node.map_or_else(|| OWN_KEY.to_owned(), |node| node.id.to_string()),
        at: record.occurred_at.timestamp_millis(),
        text: record.to_json_line(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(brokers: &str) -> Result<Vec<String>, SettingsError> {
        let settings =
            json!({"brokers": brokers, "topic": "t", "encryption": "none", "compression": "none"});
        let sink: Kafka = serde_json::from_value(settings).unwrap();
        let addresses = sink.addresses()?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn brokers_are_named_as_everybody_names_them() {
        let read_them = read("kafka-1.example.com:9093, kafka-2,[2001:db8::1]:9094 , [::1],");
        assert_eq!(
            read_them.unwrap(),
            [
                "kafka-1.example.com:9093",
                "kafka-2:9092",
                "[2001:db8::1]:9094",
                "[::1]:9092"
            ]
        );
        for wrong in [
            "",
            " , ",
            "kafka:port",
            "https://kafka:9092",
            "a b:1",
            ":9092",
        ] {
            assert_eq!(read(wrong).unwrap_err().field, "brokers", "{wrong}");
        }
    }

    #[test]
    fn a_topic_has_a_name_that_kafka_takes() {
        for topic in ["", "a b", "söne", &"x".repeat(250)] {
            let settings = json!({"brokers": "k", "topic": topic, "encryption": "none", "compression": "none"});
            let error = KIND.read(&settings).map(drop).unwrap_err();
            assert_eq!(error.field, "topic", "{topic}");
        }
    }
}
