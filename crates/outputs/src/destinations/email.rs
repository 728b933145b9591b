//! Alerts by mail: text and HTML in one message, over SMTP without encryption, with STARTTLS, or with TLS from the start.

use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::field::CA_CERTIFICATE;
use super::{Check, Destination, Field, Input, Kind, SettingsError};
use crate::smtp::MailServer;
use crate::{Message, Outbound, SendError, Told, shorten};

pub(super) const KIND: Kind = Kind::of::<Email>(
    "email",
    "E-mail",
    "Mail to one or more addresses, by your mail server.",
    &[
        Field::text("server", "Mail server", "Its host name."),
        Field::new(
            "port",
            "Port",
            "Usually 587 with STARTTLS, 465 with TLS, 25 without.",
            Input::Number,
        )
        .or("587"),
        Field::new(
            "encryption",
            "Encryption",
            "",
            Input::Choice(&[
                ("starttls", "STARTTLS"),
                ("tls", "TLS from the start"),
                ("none", "none"),
            ]),
        ),
        Field::text("username", "User name", "Empty: no sign-in.").optional(),
        Field::secret("password", "Password", "").optional(),
        Field::text("from", "From", "Ostiary <ostiary@example.com>"),
        Field::text("to", "To", "One or more addresses, separated by commas."),
        CA_CERTIFICATE,
    ],
)
.with_digests();

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Encryption {
    Starttls,
    Tls,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Email {
    server: String,
    port: u16,
    encryption: Encryption,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: SecretString,
    from: String,
    to: String,
    #[serde(default)]
    ca_certificate: String,
}

impl Email {
    fn from(&self) -> Result<Mailbox, SettingsError> {
        let from = self.from.trim();
        from.parse()
            .map_err(|_| SettingsError::of("from", format!("\"{from}\" is no mail address")))
    }

    fn to(&self) -> Result<Vec<Mailbox>, SettingsError> {
        let addresses = self
            .to
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty());
        let mailboxes: Result<Vec<Mailbox>, SettingsError> = addresses
            .map(|address| {
                address.parse().map_err(|_| {
                    SettingsError::of("to", format!("\"{address}\" is no mail address"))
                })
            })
            .collect();
        match mailboxes {
            Ok(mailboxes) if mailboxes.is_empty() => {
                Err(SettingsError::of("to", "a recipient is missing"))
            }
            other => other,
        }
    }

    fn tls(&self) -> Result<Tls, SettingsError> {
        if self.encryption == Encryption::None {
            return Ok(Tls::None);
        }
        let mut parameters = TlsParameters::builder(self.server.trim().to_owned());
        if !self.ca_certificate.trim().is_empty() {
            // lettre takes a text without any certificate for an empty list of them.
            if !self.ca_certificate.contains("-----BEGIN CERTIFICATE-----") {
                return Err(SettingsError::of(
                    "ca_certificate",
                    "the CA certificate is no PEM text",
                ));
            }
            let certificate =
                Certificate::from_pem(self.ca_certificate.as_bytes()).map_err(|error| {
                    let problem = format!("the CA certificate cannot be read: {error}");
                    SettingsError::of("ca_certificate", problem)
                })?;
            parameters = parameters.add_root_certificate(certificate);
        }
        let parameters = parameters
            .build()
            .map_err(|error| SettingsError::of("form", format!("TLS cannot be set up: {error}")))?;
        Ok(if self.encryption == Encryption::Tls {
            Tls::Wrapper(parameters)
        } else {
            Tls::Required(parameters)
        })
    }

    /// The mail. Header values come from rules and nodes: lettre encodes them, and a line break cannot get in. `first` names it, so that
    /// a repetition has the same id; one finding is one thread.
    fn compose(
        &self,
        first: &Message,
        told: Told,
        is_digest: bool,
    ) -> Result<lettre::Message, SendError> {
        let domain = self
            .from()
            .map_err(SendError::refused)?
            .email
            .domain()
            .to_owned();
        let mut builder = lettre::Message::builder()
            .from(self.from().map_err(SendError::refused)?)
            .subject(shorten(&told.title))
            .date(first.now.into())
            .message_id(Some(format!("<{}@{domain}>", first.delivery_id)))
            // RFC 3834: no out-of-office answers to an alert.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
        if !is_digest {
            builder = builder.references(format!("<finding-{}@{domain}>", first.alert.finding_id));
        }
        for recipient in self.to().map_err(SendError::refused)? {
            builder = builder.to(recipient);
        }
        let written = match told.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(told.text, html)),
            None => builder.singlepart(SinglePart::plain(told.text)),
        };
        written.map_err(|error| SendError::refused(format!("the mail cannot be written: {error}")))
    }

    async fn tell(
        &self,
        outbound: &Outbound,
        first: &Message,
        told: Told,
        is_digest: bool,
    ) -> Result<String, SendError> {
        outbound.note(&format!("{}\n\n{}", told.title, told.text));
        let mail = self.compose(first, told, is_digest)?;
        let credentials = (!self.username.is_empty()).then(|| {
            let password = self.password.expose_secret().to_owned();
            Credentials::new(self.username.clone(), password)
        });
        let server = MailServer {
            // Connecting to the addresses that were checked, while TLS still asks for the server's name.
            addresses: outbound
                .connector
                .resolve(self.server.trim(), self.port)
                .await?,
            tls: self.tls().map_err(SendError::refused)?,
            credentials,
            timeout: outbound.timeout,
        };
        server.submit(&mail).await
    }
}

impl Check for Email {
    fn check(&self) -> Result<(), SettingsError> {
        if self.server.trim().is_empty() {
            return Err(SettingsError::of("server", "the mail server is missing"));
        }
        if self.encryption == Encryption::None && !self.password.expose_secret().is_empty() {
            return Err(SettingsError::of(
                "encryption",
                "a password would travel readable: choose STARTTLS or TLS",
            ));
        }
        self.from()?;
        self.to()?;
        self.tls().map(drop)
    }
}

#[async_trait]
impl Destination for Email {
    fn summary(&self) -> String {
        format!("mail to {}", shorten(&self.to))
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        self.tell(outbound, message, Told::of(message), false).await
    }

    async fn send_digest(
        &self,
        outbound: &Outbound,
        messages: &[Message],
    ) -> Result<String, SendError> {
        let [first, rest @ ..] = messages else {
            return Err(SendError::refused("there is nothing to be told"));
        };
        let told = Told::of_all(messages);
        self.tell(outbound, first, told, !rest.is_empty()).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_checked() {
        let settings = |changes: serde_json::Value| {
            let mut settings = json!({
                "server": "mail.example.com", "port": 587, "encryption": "starttls",
                "from": "Ostiary <o@example.com>", "to": "a@example.com, B <b@example.com>"
            });
            for (key, value) in changes.as_object().unwrap() {
                settings[key] = value.clone();
            }
            KIND.read(&settings)
                .map(|email| email.summary())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            settings(json!({})),
            Ok("mail to a@example.com, B <b@example.com>".into())
        );
        for (changes, part) in [
            (json!({"server": " "}), "server is missing"),
            (json!({"to": " , "}), "recipient"),
            (json!({"to": "nobody"}), "no mail address"),
            (
                json!({"from": "x\r\nBcc: y@example.com"}),
                "no mail address",
            ),
            (json!({"encryption": "none", "password": "p"}), "readable"),
            (json!({"ca_certificate": "rubbish"}), "CA certificate"),
            (json!({"port": "x"}), "invalid"),
            (json!({"colour": "red"}), "unknown field"),
        ] {
            let error = settings(changes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
