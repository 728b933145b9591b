//! Files of lines, in the folder that the settings allow. A file that is full becomes `name.1`, and so on.
//!
//! A batch is on the disk (`fsync`) before it counts. What a kill left of a line is cut off before the next one is written. Another
//! program may move the file away (logrotate): a new one is begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Deserialize;

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, begun, field, wrong};
use crate::SendError;
use crate::sinks::Format;
use crate::sinks::format::{FORMAT_HELP, FORMATS};

pub(super) const KIND: Kind = Kind::of::<RotatingFile>(
    "file",
    "File",
    "Lines in a file on the worker's machine, rotated by size.",
    &[
        field(
            "file",
            "File",
            "Its name, in the folder of [sinks] folder.",
            Input::Text,
            true,
        ),
        field("format", "Format", FORMAT_HELP, FORMATS, true),
        begun(
            field(
                "max_mib",
                "Largest size",
                "In MiB; then a new file is begun.",
                Input::Number,
                false,
            ),
            "100",
        ),
        begun(
            field(
                "keep",
                "Files kept",
                "Full ones, besides the one that is written.",
                Input::Number,
                false,
            ),
            "5",
        ),
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotatingFile {
    file: String,
    format: Format,
    max_mib: Option<u64>,
    keep: Option<u16>,
}

impl Check for RotatingFile {
    fn check(&self) -> Result<(), SettingsError> {
        let name = &self.file;
        let is_plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if name.is_empty() || name.starts_with('.') || !is_plain || name.len() > 200 {
            return Err(wrong(
                "file",
                "the file needs a name of letters, digits, \".\", \"_\" and \"-\" that does not begin with a dot",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for RotatingFile {
    fn summary(&self) -> String {
        format!("file {}", self.file)
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        if way.folder.as_os_str().is_empty() {
            return Err(SendError::rejected(
                "the settings of the worker name no folder for files ([sinks] folder)",
            ));
        }
        let lines = self.format.lines(records);
        let rotation = Rotation {
            path: way.folder.join(&self.file),
            largest: self.max_mib.unwrap_or(100).max(1) << 20,
            keep: self.keep.unwrap_or(5).max(1),
        };
        let path = rotation.path.display().to_string();
        tokio::task::spawn_blocking(move || rotation.append(&lines))
            .await
            .map_err(io::Error::other)
            .and_then(|written| written)
            .map_err(|error| SendError::retry(format!("{path}: {error}")))?;
        Ok(Taken::all(format!("written to {path}")))
    }
}

struct Rotation {
    path: PathBuf,
    largest: u64,
    keep: u16,
}

impl Rotation {
    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut file = open(&self.path)?;
        let mut end = cut_off_rest(&mut file)?;
        if end > 0 && end + lines.len() as u64 > self.largest {
            drop(file);
            self.rotate()?;
            file = open(&self.path)?;
            end = cut_off_rest(&mut file)?;
        }
        file.seek(SeekFrom::Start(end))?;
        file.write_all(lines)?;
        file.sync_data()
    }

    fn rotate(&self) -> io::Result<()> {
        let numbered = |n: u16| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))
    }
}

/// Never through a link that somebody else has put there.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)?;
    let (opened, named) = (file.metadata()?, std::fs::symlink_metadata(path)?);
    if !named.is_file() || opened.ino() != named.ino() || opened.dev() != named.dev() {
        return Err(io::Error::other("this is no plain file"));
    }
    Ok(file)
}

/// Cuts off what stands behind the last end of a line, and returns where the file ends then.
fn cut_off_rest(file: &mut File) -> io::Result<u64> {
    const PIECE: u64 = 64 * 1024;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        let mut piece = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("ostiary-sinks-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn rotation(folder: &Folder, largest: u64) -> Rotation {
        Rotation {
            path: folder.0.join("osquery.log"),
            largest,
            keep: 2,
        }
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let folder = Folder::new("rotate");
        let rotation = rotation(&folder, 10);
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "sixsix\n"] {
            rotation.append(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).unwrap();
        assert_eq!(read("osquery.log"), "sixsix\n");
        assert_eq!(read("osquery.log.1"), "four\nfive\n");
        assert_eq!(read("osquery.log.2"), "three\n");
        assert!(!folder.0.join("osquery.log.3").exists());
    }

    #[test]
    fn what_a_kill_left_of_a_line_is_cut_off() {
        let folder = Folder::new("cut");
        let rotation = rotation(&folder, 1 << 20);
        let half = format!("whole\n{}", "h".repeat(200_000));
        std::fs::write(&rotation.path, half).unwrap();
        rotation.append(b"next\n").unwrap();
        let text = std::fs::read_to_string(&rotation.path).unwrap();
        assert_eq!(text, "whole\nnext\n");
        std::fs::write(&rotation.path, "no end").unwrap();
        rotation.append(b"first\n").unwrap();
        assert_eq!(std::fs::read_to_string(&rotation.path).unwrap(), "first\n");
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = Folder::new("link");
        let rotation = rotation(&folder, 100);
        let elsewhere = folder.0.join("elsewhere");
        std::fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &rotation.path).unwrap();
        assert!(rotation.append(b"x\n").is_err());
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"");
    }

    #[test]
    fn names_of_files_lead_nowhere_else() {
        for (name, is_good) in [
            ("osquery.log", true),
            ("results-1.json", true),
            ("../x", false),
            ("/etc/passwd", false),
            (".bashrc", false),
            ("a b", false),
            ("", false),
        ] {
            let read = KIND.read(&serde_json::json!({"file": name, "format": "json"}));
            assert_eq!(read.is_ok(), is_good, "{name}");
        }
    }
}
