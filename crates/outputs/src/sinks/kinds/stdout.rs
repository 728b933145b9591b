//! The worker's standard output, for those who collect what containers print.

use std::io::Write as _;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Check, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::sinks::Format;
use crate::sinks::format::{FORMAT_HELP, FORMATS};

pub(super) const KIND: Kind = Kind::of::<Stdout>(
    "stdout",
    "Standard output",
    "Lines on the worker's standard output, where its own log may be, too.",
    &[field("format", "Format", FORMAT_HELP, FORMATS, true)],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stdout {
    format: Format,
}

impl Check for Stdout {
    fn check(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

#[async_trait]
impl Sink for Stdout {
    fn summary(&self) -> String {
        "standard output of the worker".to_owned()
    }

    async fn forward(&mut self, _: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let lines = self.format.lines(records);
        // A reader that hangs must not hang the runtime.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        });
        written
            .await
            .map_err(std::io::Error::other)
            .and_then(|written| written)
            .map_err(|error| SendError::retry(format!("standard output: {error}")))?;
        Ok(Taken::all("written"))
    }
}
