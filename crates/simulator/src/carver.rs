//! What a carve is before it travels: which query asks for one, its archive, and how it is cut. Sending is in `node::carver_thread`.

use sha2::{Digest as _, Sha256};

use crate::value::{Row, row};

/// Flags of the carver (all of the command line only). A fleet without them is one with `--disable_carver=true`, the default.
#[derive(Debug, Clone)]
pub struct Carver {
    /// `--carver_block_size`
    pub block_size: usize,
    /// `--carver_compression`
    pub compression: bool,
    /// How many bytes the file has that every path holds here.
    pub file_bytes: usize,
}

/// A carve as its node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carve {
    /// `carve_guid`.
    pub guid: String,
    /// The path that was asked for.
    pub path: String,
    /// `SCHEDULED`, `STARTING`, `PENDING`, `SUCCESS`, `DATA POST FAILED`.
    pub status: &'static str,
    /// SHA-256 of the archive, in hex; empty until it is made.
    pub sha256: String,
    /// Bytes of the archive; 0 until it is made.
    pub size: usize,
    /// By the node's clock.
    pub time: i64,
    /// Blocks that the server took, by the client's verdict.
    pub blocks_taken: usize,
}

impl Carve {
    pub(crate) fn row(&self) -> Row {
        row! {
            "time" => self.time,
            "sha256" => &self.sha256,
            "size" => i64::try_from(self.size).unwrap_or(i64::MAX),
            "path" => &self.path,
            "status" => self.status,
            "carve_guid" => &self.guid,
            "request_id" => "",
            "carve" => 1_i64,
        }
    }
}

/// The path that a query asks to carve: `carve = 1` and a literal path, in whatever order.
pub(crate) fn asked_path(sql: &str) -> Option<String> {
    let words = sql.to_ascii_lowercase();
    let compact: String = words.chars().filter(|c| !c.is_whitespace()).collect();
    if !words.contains("carves") || !compact.contains("carve=1") {
        return None;
    }
    let after = sql[words.rfind("path")? + 4..].trim_start();
    let after = after.strip_prefix('=').or_else(|| {
        after
            .get(..4)
            .filter(|word| word.eq_ignore_ascii_case("like"))
            .map(|_| &after[4..])
    })?;
    let quoted = after.trim_start().strip_prefix('\'')?;
    let mut path = String::new();
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => {
                chars.next();
                path.push('\'');
            }
            '\'' => return Some(path),
            other => path.push(other),
        }
    }
    None
}

/// The archive of a carve: one file, whose bytes follow from the GUID, under the temporary path that osqueryd gives it.
pub fn archive(guid: &str, path: &str, carver: &Carver) -> Vec<u8> {
    let name = format!("tmp/osquery_carve_{guid}/{}", path.trim_start_matches('/'));
    let content = content(guid, carver.file_bytes);
    let mut tar = header(&name, content.len()).to_vec();
    tar.extend_from_slice(&content);
    tar.resize(tar.len().div_ceil(512) * 512 + 1024, 0);
    if carver.compression {
        zstd::encode_all(tar.as_slice(), 1).expect("memory takes all bytes")
    } else {
        tar
    }
}

/// The bytes of the file in a carve: no pattern that compresses well, like most of what is worth carving.
pub fn content(guid: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest(guid.as_bytes());
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(length);
    bytes
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A header of POSIX.1-1988 (ustar); names beyond 100 bytes are cut, as no path here has them.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    let end = (0..=name.len().min(100))
        .rev()
        .find(|at| name.is_char_boundary(*at));
    put(0, &name[..end.unwrap_or(0)]);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", 1_750_000_000));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_a_carve_by_a_literal_path() {
        for (sql, path) in [
            (
                "SELECT * FROM carves WHERE carve = 1 AND path = '/etc/hosts'",
                Some("/etc/hosts"),
            ),
            (
                "select * from carves where carve=1 and path like '/var/log/%'",
                Some("/var/log/%"),
            ),
            (
                "SELECT * FROM carves WHERE path = '/it''s' AND carve = 1",
                Some("/it's"),
            ),
            ("SELECT * FROM carves", None),
            ("SELECT * FROM carves WHERE carve = 0 AND path = '/x'", None),
            ("SELECT * FROM file WHERE path = '/x'", None),
            (
                "SELECT * FROM carves WHERE carve = 1 AND path = '/open",
                None,
            ),
        ] {
            assert_eq!(asked_path(sql).as_deref(), path, "{sql}");
        }
    }

    #[test]
    fn an_archive_is_the_same_every_time_and_has_a_sound_header() {
        let carver = Carver {
            block_size: 100,
            compression: false,
            file_bytes: 1000,
        };
        let tar = archive("g", "/etc/hosts", &carver);
        assert_eq!(tar, archive("g", "/etc/hosts", &carver));
        assert_eq!(tar.len(), 512 + 1024 + 1024);
        assert!(tar.starts_with(b"tmp/osquery_carve_g/etc/hosts\0"));
        let sum: u32 = tar[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        let told = std::str::from_utf8(&tar[148..154]).unwrap();
        assert_eq!(u32::from_str_radix(told, 8).unwrap(), sum);
        let packed = archive(
            "g",
            "/etc/hosts",
            &Carver {
                compression: true,
                ..carver
            },
        );
        assert!(packed.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), tar);
    }
}
