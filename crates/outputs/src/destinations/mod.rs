//! Where alerts go: the list of kinds. Instances are edited in the manager, their settings sealed at rest.
//!
//! A new kind is a file here, its `mod` line and its line in [`KINDS`].

mod email;
mod webhook;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Message, Outbound, SendError, TestAlert};

/// Every kind of destination.
pub const KINDS: &[Kind] = &[email::KIND, webhook::KIND];

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
}

/// How a field of the settings looks in a form.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key in the settings.
    pub name: &'static str,
    /// What a form calls it.
    pub label: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What is typed in.
    pub input: Input,
    /// Must it be given?
    pub required: bool,
}

/// What is typed into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// One line.
    Text,
    /// A port.
    Number,
    /// Shown once and never again; left empty in an edit it stays as it was.
    Secret,
    /// Several lines.
    LongText,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// Why settings are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

type Read = fn(&Value) -> Result<Box<dyn Destination>, SettingsError>;

/// A kind of destination.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As it stands in `destinations.kind`.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// Its settings.
    pub fields: &'static [Field],
    read: Read,
}

impl Kind {
    const fn of<D: Destination + DeserializeOwned + Check + 'static>(
        name: &'static str,
        label: &'static str,
        fields: &'static [Field],
    ) -> Self {
        Self {
            name,
            label,
            fields,
            read: read::<D>,
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
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
    destination.send(outbound, &test.message()).await
}

/// What serde alone does not check.
trait Check {
    fn check(&self) -> Result<(), SettingsError>;
}

fn read<D: Destination + DeserializeOwned + Check + 'static>(
    settings: &Value,
) -> Result<Box<dyn Destination>, SettingsError> {
    let destination = D::deserialize(settings).map_err(|error| SettingsError(error.to_string()))?;
    destination.check()?;
    Ok(Box::new(destination))
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
            .filter(|name| name != "mod")
            .collect();
        files.sort();
        let mut kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        kinds.sort_unstable();
        assert_eq!(files, kinds);
    }
}
