//! The list of kinds.

mod datadog;
mod elasticsearch;
mod file;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod loki;
mod nats;
#[cfg(feature = "s3")]
mod s3;
mod splunk;
mod stdout;
mod sumo_logic;
mod syslog;

use super::{Check, Kind, Limits, Record, Sink, Taken, Way, begun, field, wrong};
use crate::destinations::{Input, SettingsError};

/// Every kind of sink.
pub const KINDS: &[Kind] = &[
    file::KIND,
    stdout::KIND,
    syslog::KIND,
    http::KIND,
    splunk::KIND,
    elasticsearch::KIND,
    loki::KIND,
    sumo_logic::KIND,
    datadog::KIND,
    #[cfg(feature = "s3")]
    s3::KIND,
    #[cfg(feature = "kafka")]
    kafka::KIND,
    nats::KIND,
];

fn not_empty(field: &'static str, text: &str) -> Result<(), SettingsError> {
    if text.trim().is_empty() {
        return Err(wrong(field, "this must not be empty"));
    }
    Ok(())
}

#[cfg(all(test, feature = "kafka", feature = "s3"))]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_this_folder_is_a_kind() {
        let folder =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sinks/kinds")).unwrap();
        let mut files: Vec<String> = folder
            .map(|entry| {
                let path = entry.unwrap().path();
                path.file_stem().unwrap().to_string_lossy().into_owned()
            })
            .filter(|name| name != "mod")
            .collect();
        files.sort();
        let mut kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        kinds.sort_unstable();
        assert_eq!(files, kinds);
    }
}
