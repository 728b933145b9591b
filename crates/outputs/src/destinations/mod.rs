//! Where alerts go: the list of kinds. Instances are edited in the manager, their settings sealed at rest.
//!
//! A new kind is a file here, its `mod` line and its line in [`KINDS`].

mod channel;
mod email;
mod field;
mod jira;
mod pagerduty;
mod sentry;
mod slack;
mod syslog;
mod teams;
mod webhook;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::field::{Field, Input};
pub use self::pagerduty::hook as pagerduty_hook;
use crate::{AlertKind, Message, Outbound, SendError, TestAlert, hide};

/// Every kind of destination.
pub const KINDS: &[Kind] = &[
    email::KIND,
    pagerduty::KIND,
    slack::KIND,
    teams::KIND,
    webhook::KIND,
    jira::KIND,
    syslog::KIND,
    sentry::KIND,
];

/// For what the settings of destinations are sealed: the manager seals, the worker opens.
pub const SEAL_PURPOSE: &str = "destination";

/// A configured place for alerts.
#[async_trait]
pub trait Destination: Send + Sync {
    /// What a list may show of it; never a secret.
    fn summary(&self) -> String;

    /// Sends one alert and returns what was answered.
    ///
    /// # Errors
    /// It was not taken; the error says whether another try is worth it.
    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError>;

    /// Sends several alerts in one message, if the kind [can](Kind::digests).
    ///
    /// # Errors
    /// As [`Self::send`]; none of them was taken.
    async fn send_digest(
        &self,
        outbound: &Outbound,
        messages: &[Message],
    ) -> Result<String, SendError> {
        match messages {
            [one] => self.send(outbound, one).await,
            _ => Err(SendError::refused("this kind takes one alert at a time")),
        }
    }
}

/// Why settings are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SettingsError {
    /// The field it is about; `form` for none in particular.
    pub field: &'static str,
    /// For the person who typed it.
    pub problem: String,
}

impl SettingsError {
    fn of(field: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { field, problem }
    }
}

type Read = fn(&Value) -> Result<Box<dyn Destination>, SettingsError>;

/// A kind of destination.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As it stands in `destinations.kind`.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it is good for, in a sentence.
    pub meaning: &'static str,
    /// Its settings.
    pub fields: &'static [Field],
    /// Can it take several alerts in one message?
    pub digests: bool,
    read: Read,
}

impl Kind {
    const fn of<D: Destination + DeserializeOwned + Check + 'static>(
        name: &'static str,
        label: &'static str,
        meaning: &'static str,
        fields: &'static [Field],
    ) -> Self {
        Self {
            name,
            label,
            meaning,
            fields,
            digests: false,
            read: read::<D>,
        }
    }

    const fn with_digests(self) -> Self {
        Self {
            digests: true,
            ..self
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// What must never be shown of settings: the values of its secret fields.
    #[must_use]
    pub fn secrets(&self, settings: &Value) -> Vec<String> {
        let secret = self
            .fields
            .iter()
            .filter(|field| field.input == Input::Secret);
        secret
            .filter_map(|field| Some(settings.get(field.name)?.as_str()?.to_owned()))
            .collect()
    }

    /// Makes a destination out of its settings.
    ///
    /// # Errors
    /// They do not fit; the message is for the person who typed them.
    pub fn read(&self, settings: &Value) -> Result<Box<dyn Destination>, SettingsError> {
        (self.read)(settings)
    }
}

/// Sends a clearly marked test alert now and returns what was answered.
///
/// # Errors
/// The settings do not fit, or the destination did not take it.
pub async fn send_test(
    outbound: &Outbound,
    kind: &Kind,
    settings: &Value,
    test: &TestAlert<'_>,
) -> Result<String, SendError> {
    let destination = kind.read(settings).map_err(SendError::refused)?;
    let secrets = kind.secrets(settings);
    let sent = destination.send(outbound, &test.message()).await;
    sent.map(|answer| hide(&secrets, &answer))
        .map_err(|error| error.hiding(&secrets))
}

/// What serde alone does not check.
trait Check {
    fn check(&self) -> Result<(), SettingsError>;
}

fn read<D: Destination + DeserializeOwned + Check + 'static>(
    settings: &Value,
) -> Result<Box<dyn Destination>, SettingsError> {
    let destination =
        D::deserialize(settings).map_err(|error| SettingsError::of("form", error.to_string()))?;
    destination.check()?;
    Ok(Box::new(destination))
}

/// A URL that people typed into a field.
fn web_url(field: &'static str, text: &str) -> Result<reqwest::Url, SettingsError> {
    let url: reqwest::Url = text
        .trim()
        .parse()
        .map_err(|_| SettingsError::of(field, "this is no URL"))?;
    match url.scheme() {
        "https" | "http" if url.host_str().is_some() => Ok(url),
        _ => Err(SettingsError::of(
            field,
            "the URL must begin with https:// or http://",
        )),
    }
}

/// What a kind that knows no end of a matter answers for acknowledgements and resolutions; the ledger says so.
fn only_opened(kind: AlertKind, name: &str) -> Option<String> {
    matches!(kind, AlertKind::Acknowledged | AlertKind::Resolved)
        .then(|| format!("not sent: {name} knows only that something happened"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_this_folder_is_a_kind() {
        let folder =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/destinations")).unwrap();
        let mut files: Vec<String> = folder
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| !["mod", "field", "channel"].contains(&name.as_str()))
            .collect();
        files.sort();
        let mut kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        kinds.sort_unstable();
        assert_eq!(files, kinds);
    }

    #[test]
    fn an_unknown_setting_is_refused_by_every_kind() {
        for kind in KINDS {
            let error = kind
                .read(&serde_json::json!({"colour": "red"}))
                .err()
                .unwrap();
            assert!(
                error.problem.contains("unknown field"),
                "{}: {error}",
                kind.name
            );
        }
    }
}
