//! Files of node keys of any other manager: CSV with `host_identifier,node_key`, and if known
//! `hardware_uuid,hardware_serial,hostname,platform,tags`.
//!
//! **Invariant:** a key is hashed as it is read; nothing else of it leaves here, nor anything of a line that cannot be used.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::tag;

const COLUMNS: [&str; 7] = [
    "host_identifier",
    "node_key",
    "hardware_uuid",
    "hardware_serial",
    "hostname",
    "platform",
    "tags",
];

/// Bytes of one file at most.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Lines of one file at most.
pub const MAX_LINES: usize = 200_000;

/// Another manager's keys have another look, but no shorter one is a secret, and a header holds no other characters.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 8..=512;

/// Bytes of a name at most.
const MAX_TEXT: usize = 255;

/// Why a file is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It has too many bytes.
    #[error("This is too large: at most {} MiB.", MAX_BYTES >> 20)]
    TooLarge,
    /// It has too many lines.
    #[error("There are too many lines: at most {MAX_LINES}.")]
    TooManyLines,
    /// Its first line cannot be read.
    #[error("The first line cannot be read as CSV.")]
    NoHeaders,
    /// A column is missing that is needed.
    #[error("The first line has to name the columns, at least host_identifier and node_key. There are: {}.", COLUMNS.join(", "))]
    NoColumns,
}

/// A node that comes with its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    /// Where it was read: `line 7`.
    pub place: String,
    /// SHA-256 of its key, in hex.
    pub key_sha256: String,
    /// What the node calls itself; never empty.
    pub host_identifier: String,
    /// Its host name, if known.
    pub hostname: String,
    /// Its platform in lower case, if known.
    pub platform: String,
    /// SMBIOS or platform UUID, if known.
    pub hardware_uuid: String,
    /// The maker's serial number, if known.
    pub hardware_serial: String,
    /// Names of tags.
    pub tags: Vec<String>,
}

/// A file that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// Its nodes, in the order of the lines.
    pub nodes: Vec<KeyLine>,
    /// Places and what is wrong there, in sentences.
    pub problems: Vec<(String, String)>,
}

impl KeyFile {
    /// Reads CSV. Lines that cannot be used are problems, never with what stands in them.
    ///
    /// # Errors
    /// It is too large, no CSV, or without the two columns that are needed.
    pub fn read(text: &str) -> Result<Self, KeyFileError> {
        if text.len() > MAX_BYTES {
            return Err(KeyFileError::TooLarge);
        }
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.trim_start_matches('\u{FEFF}').as_bytes());
        let Ok(headers) = reader.headers().cloned() else {
            return Err(KeyFileError::NoHeaders);
        };
        let columns: HashMap<String, usize> = (headers.iter().enumerate())
            .map(|(index, name)| (name.trim().to_lowercase(), index))
            .collect();
        if !["host_identifier", "node_key"]
            .iter()
            .all(|needed| columns.contains_key(*needed))
        {
            return Err(KeyFileError::NoColumns);
        }
        let mut file = Self::default();
        for name in headers
            .iter()
            .filter(|name| !COLUMNS.contains(&name.trim().to_lowercase().as_str()))
        {
            // A line of keys that was taken for the headers must not be shown.
            let shown: String = name
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
                .take(16)
                .collect();
            file.problems.push((
                "line 1".to_owned(),
                format!("The column {shown} is not used."),
            ));
        }
        for (index, record) in reader.into_records().enumerate() {
            if index >= MAX_LINES {
                return Err(KeyFileError::TooManyLines);
            }
            match record {
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    let cell = |name: &str| {
                        columns
                            .get(name)
                            .and_then(|index| record.get(*index))
                            .unwrap_or_default()
                            .to_owned()
                    };
                    file.line(&format!("line {line}"), cell);
                }
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    file.problems.push((
                        format!("line {line}"),
                        "It cannot be read as CSV; it is left out.".to_owned(),
                    ));
                }
            }
        }
        Ok(file)
    }

    fn line(&mut self, place: &str, cell: impl Fn(&str) -> String) {
        let (key, host_identifier) = (cell("node_key"), cell("host_identifier"));
        let mut problem =
            |sentence: &str| self.problems.push((place.to_owned(), sentence.to_owned()));
        if !KEY_LENGTHS.contains(&key.len()) {
            return problem("The key has to have 8 to 512 characters; the line is left out.");
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return problem("The key has characters that no node key has; the line is left out.");
        }
        if host_identifier.is_empty() {
            return problem("There is no host identifier; the line is left out.");
        }
        if [
            host_identifier.as_str(),
            &cell("hostname"),
            &cell("hardware_serial"),
            &cell("hardware_uuid"),
            &cell("platform"),
        ]
        .iter()
        .any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return problem("A name is too long or has control characters; the line is left out.");
        }
        let mut tags: Vec<String> = Vec::new();
        let of_tags = cell("tags");
        let words = of_tags.split(|c: char| c.is_whitespace() || ";,".contains(c));
        for tag in words.filter(|tag| !tag.is_empty()) {
            if tag::is_name(tag) {
                if !tags.iter().any(|known| known.eq_ignore_ascii_case(tag)) {
                    tags.push(tag.to_owned());
                }
            } else {
                problem(
                    "A tag is no word of letters, digits and - _ . / @, or too long, and is left out.",
                );
            }
        }
        self.nodes.push(KeyLine {
            place: place.to_owned(),
            key_sha256: hex::encode(Sha256::digest(key.as_bytes())),
            host_identifier,
            hostname: cell("hostname"),
            platform: cell("platform").to_lowercase(),
            hardware_uuid: cell("hardware_uuid"),
            hardware_serial: cell("hardware_serial"),
            tags,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_used_is_told_without_what_stands_in_it() {
        let text = "\u{FEFF}Host_Identifier, node_key ,tags,secret colour\n a , key-of-a-1 ,prod; Prod lab,x\nb,short\n,key-of-none\nc,key of c 12\nd,key-of-d-1,!!";
        let file = KeyFile::read(text).unwrap();
        let names: Vec<&str> = file
            .nodes
            .iter()
            .map(|node| node.host_identifier.as_str())
            .collect();
        assert_eq!(names, ["a", "d"]);
        assert_eq!(
            file.nodes[0].key_sha256,
            hex::encode(Sha256::digest("key-of-a-1"))
        );
        assert_eq!(file.nodes[0].tags, ["prod", "lab"]);
        let places: Vec<&str> = file
            .problems
            .iter()
            .map(|(place, _)| place.as_str())
            .collect();
        assert_eq!(places, ["line 1", "line 3", "line 4", "line 5", "line 6"]);
        let said = format!("{:?}", file.problems);
        for kept_back in ["short", "key-of-none", "key of c"] {
            assert!(!said.contains(kept_back), "{said}");
        }
        assert_eq!(KeyFile::read("a,b\n"), Err(KeyFileError::NoColumns));
        assert_eq!(KeyFile::read(""), Err(KeyFileError::NoColumns));
        let bad = "host_identifier,node_key,hardware_uuid\nx,key-of-x-1,\u{7}";
        assert!(KeyFile::read(bad).unwrap().nodes.is_empty());
    }
}
