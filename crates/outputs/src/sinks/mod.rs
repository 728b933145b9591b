//! Where everything goes that is reported: to files, streams and SIEMs. Instances are edited in the manager, their settings sealed.
//!
//! A sink gets [`Record`]s in the order in which they are to arrive, a batch at a time, and says how many of them were taken. What is
//! read, in which order, and what happens after a failure is the worker's part; nothing here remembers anything but an open
//! connection or file. A new kind is a file in [`kinds`], its `mod` line and its line in [`KINDS`].

mod format;
mod gzip;
#[cfg(feature = "kafka")]
mod kafka;
mod kinds;
mod record;
mod stream;
mod web;

pub use format::Format;
pub use kinds::KINDS;
pub use record::{Body, NodeOfRecord, Record};

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::destinations::{Field, Input, SettingsError};
use crate::{Outbound, SendError};

/// For what the settings of sinks are sealed: the manager seals, the worker opens.
pub const SEAL_PURPOSE: &str = "sink";

/// Settings `[sinks]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The folder in which sinks of kind `file` may write; empty: there are none. It is named here and not in the manager, so that
    /// who is an admin there cannot write files wherever the worker could.
    pub folder: PathBuf,
}

/// What a sink needs from the process that forwards.
#[derive(Debug, Clone)]
pub struct Way {
    /// The way out of the house.
    pub outbound: Outbound,
    /// As in [`Options::folder`].
    pub folder: PathBuf,
    /// The name of the sink, as people gave it.
    pub name: String,
    /// Now.
    pub now: DateTime<Utc>,
}

/// How much a sink takes at once, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines at most.
    pub lines: usize,
    /// Bytes at most, as JSON; a larger line goes alone.
    pub bytes: usize,
    /// From one batch that was not full to the next.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lines: 1000,
            bytes: 1 << 20,
            pause: Duration::ZERO,
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was answered.
    pub answer: String,
    /// Lines that the other side refused for good, while it took the rest.
    pub refused: usize,
    /// Why.
    pub refusal: String,
}

impl Taken {
    /// All of it.
    pub(crate) fn all(answer: impl Into<String>) -> Self {
        Self {
            answer: answer.into(),
            ..Self::default()
        }
    }
}

/// A configured place for everything that is reported.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What a list may show of it; never a secret.
    fn summary(&self) -> String;

    /// How much it takes at once.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Hands a batch over. When it returns, all of it is safe over there, as far as the protocol can say so, or counted as refused.
    ///
    /// # Errors
    /// It was not taken, or not surely: the whole batch will come again. [`SendError::Refused`] says that something in it is to
    /// blame; the worker then finds out which line.
    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError>;
}

type Read = fn(&Value) -> Result<Box<dyn Sink>, SettingsError>;

/// A kind of sink.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As it stands in `sinks.kind`.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What it is good for, in a sentence.
    pub meaning: &'static str,
    /// Its settings.
    pub fields: &'static [Field],
    read: Read,
}

impl Kind {
    const fn of<S: Sink + DeserializeOwned + Check + 'static>(
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
            read: read::<S>,
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Makes a sink out of its settings. Nothing is connected to yet.
    ///
    /// # Errors
    /// They do not fit; the message is for the person who typed them.
    pub fn read(&self, settings: &Value) -> Result<Box<dyn Sink>, SettingsError> {
        (self.read)(settings)
    }
}

/// What serde alone does not check.
trait Check {
    fn check(&self) -> Result<(), SettingsError>;
}

fn read<S: Sink + DeserializeOwned + Check + 'static>(
    settings: &Value,
) -> Result<Box<dyn Sink>, SettingsError> {
    let sink = S::deserialize(settings).map_err(|error| wrong("form", error.to_string()))?;
    sink.check()?;
    Ok(Box::new(sink))
}

/// A field of a form, for the tables of the kinds.
const fn field(
    name: &'static str,
    label: &'static str,
    help: &'static str,
    input: Input,
    required: bool,
) -> Field {
    Field {
        name,
        label,
        help,
        input,
        required,
        default: "",
    }
}

/// The same field, filled in for a start.
const fn begun(field: Field, default: &'static str) -> Field {
    Field { default, ..field }
}

fn wrong(field: &'static str, problem: impl Into<String>) -> SettingsError {
    SettingsError {
        field,
        problem: problem.into(),
    }
}
