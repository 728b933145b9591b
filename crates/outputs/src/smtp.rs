//! The one outbound SMTP conversation (RFC 5321): time-outs, every address of a server in turn, each recipient on its own.
//!
//! lettre's transports give up a whole mail for one recipient that is refused. One colleague who left must not keep an alert from
//! all others, so the conversation is held here, over lettre's connection.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Tls};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};

use crate::connect::{CONNECT_TIMEOUT, MOST_ADDRESSES};
use crate::{SendError, shorten};

pub(crate) const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server to which mails are submitted.
pub(crate) struct MailServer {
    /// Addresses that may be called.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) tls: Tls,
    pub(crate) credentials: Option<Credentials>,
    /// For all of the conversation, up to the answer that the mail is taken.
    pub(crate) timeout: Duration,
}

impl MailServer {
    /// Submits a mail and returns what was answered. It is sent when one recipient was taken; the answer names those that were not.
    ///
    /// # Errors
    /// Nobody gets it. Trouble before the mail itself is worth another try, for somebody may mend it meanwhile (a certificate, a
    /// block; a wrong password [seldom](SendError::Rejected), or the account would be locked); so is any answer that calls itself
    /// transient. A mail or recipients refused for good are not.
    pub(crate) async fn submit(&self, mail: &Message) -> Result<String, SendError> {
        let late = |_| SendError::retry("the mail server does not answer in time");
        let (mut connection, answer) = tokio::time::timeout(self.timeout, async {
            let mut connection = self.connect().await?;
            let answer = hand_over(&mut connection, mail).await;
            Ok::<_, SendError>((connection, answer))
        })
        .await
        .map_err(late)??;
        // The mail is taken or not: a server that is rude at the end changes nothing.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.quit()).await;
        answer
    }

    /// Connects, encrypts and signs in.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let hello = ClientId::default();
        let addresses = &self.addresses[..self.addresses.len().min(MOST_ADDRESSES)];
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            addresses,
            Some(CONNECT_TIMEOUT),
            &hello,
            wrapper,
            None,
        )
        .await
        .map_err(|error| SendError::retry(describe(&error)))?;
        if let Tls::Required(parameters) = &self.tls {
            connection
                .starttls(parameters.clone(), &hello)
                .await
                .map_err(|error| SendError::retry(describe(&error)))?;
        }
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection
                .auth(&mechanisms, credentials)
                .await
                .map_err(|error| {
                    let text = format!("signing in failed: {}", describe(&error));
                    if error.is_permanent() {
                        SendError::rejected(text)
                    } else {
                        SendError::retry(text)
                    }
                })?;
        }
        Ok(connection)
    }
}

/// One mail, from MAIL to the answer after its last line.
async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    mail: &Message,
) -> Result<String, SendError> {
    let envelope = mail.envelope();
    let mut parameters = Vec::new();
    let mut addresses = envelope.from().into_iter().chain(envelope.to());
    if addresses.any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
        if !connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight)
        {
            let text = "an address has letters beyond ASCII, which this mail server does not take";
            return Err(SendError::refused(text));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let from = Mail::new(envelope.from().cloned(), parameters);
    connection
        .command(from)
        .await
        .map_err(|error| judge(&error))?;
    let mut refusals = Vec::new();
    for recipient in envelope.to() {
        match connection
            .command(Rcpt::new(recipient.clone(), Vec::new()))
            .await
        {
            Ok(_) => {}
            Err(error) if error.status().is_some() => refusals.push((recipient, error)),
            Err(error) => return Err(judge(&error)),
        }
    }
    let named: Vec<String> = refusals
        .iter()
        .map(|(recipient, error)| format!("{recipient}: {}", describe(error)))
        .collect();
    if refusals.len() == envelope.to().len() {
        let is_final = refusals.iter().all(|(_, error)| error.is_permanent());
        let named = named.join("; ");
        return Err(if is_final {
            SendError::refused(named)
        } else {
            SendError::retry(named)
        });
    }
    connection
        .command(Data)
        .await
        .map_err(|error| judge(&error))?;
    let response = connection
        .message(&mail.formatted())
        .await
        .map_err(|error| judge(&error))?;
    let mut answer = format!(
        "{} {}",
        response.code(),
        response.message().collect::<Vec<_>>().join(" ")
    );
    if !named.is_empty() {
        answer = format!("{answer} (but not for {})", named.join("; "));
    }
    Ok(shorten(&answer))
}

fn judge(error: &Error) -> SendError {
    if error.is_permanent() {
        SendError::refused(describe(error))
    } else {
        SendError::retry(describe(error))
    }
}

/// The error with its causes.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
