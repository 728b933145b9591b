//! The archive of a backup: a tar whose first member is the manifest. Written and read as a stream, so that its size does not matter.
//!
//! **Invariant:** nothing of an archive is used before all of it was compared with its manifest.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::manifest::{self, FORMAT, Manifest, Member};

/// A manifest lists some dozens of files.
const LARGEST_MANIFEST: u64 = 1 << 20;

/// Something to be packed.
#[derive(Debug)]
pub(super) struct Source {
    /// Its name in the archive.
    pub(super) name: String,
    /// What it is made of.
    pub(super) content: Content,
}

/// See [`Source`].
#[derive(Debug)]
pub(super) enum Content {
    /// A file of the operator's, named in the manifest.
    File(PathBuf),
    /// A file that was made for the backup.
    Made(PathBuf),
    /// A text that was made for the backup.
    Text(String),
}

impl Source {
    /// Its line in the manifest.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn describe(&self) -> anyhow::Result<Member> {
        let (from, (bytes, sha256)) = match &self.content {
            Content::File(path) => (Some(path.display().to_string()), digest_of(path)?),
            Content::Made(path) => (None, digest_of(path)?),
            Content::Text(text) => (None, digest(text.as_bytes(), &mut io::sink())?),
        };
        Ok(Member {
            name: self.name.clone(),
            from,
            bytes,
            sha256,
        })
    }
}

/// Writes an archive.
///
/// # Errors
/// A file cannot be read, or was changed since the manifest was made; or `out` takes no more.
pub(super) fn write<W: Write>(
    out: W,
    manifest: &Manifest,
    sources: &[Source],
) -> anyhow::Result<W> {
    let mut tar = tar::Builder::new(out);
    let text = serde_json::to_vec_pretty(manifest).context("the manifest cannot be written")?;
    append(
        &mut tar,
        manifest::NAME,
        text.len() as u64,
        manifest,
        text.as_slice(),
    )?;
    for (source, member) in sources.iter().zip(&manifest.members) {
        match &source.content {
            Content::Text(text) => append(
                &mut tar,
                &source.name,
                member.bytes,
                manifest,
                text.as_bytes(),
            )?,
            Content::File(path) | Content::Made(path) => {
                let file = open(path)?;
                // A file that grew would shift everything behind it.
                append(
                    &mut tar,
                    &source.name,
                    member.bytes,
                    manifest,
                    file.take(member.bytes),
                )?;
            }
        }
    }
    Ok(tar.into_inner()?)
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    manifest: &Manifest,
    content: impl Read,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(manifest.made_at.timestamp()).unwrap_or(0));
    tar.append_data(&mut header, name, content)
        .with_context(|| format!("{name} cannot be packed"))
}

/// Reads the manifest, and compares everything with it.
///
/// # Errors
/// It is no backup of ours, or something in it is missing, too much, or not what it was.
pub(super) fn verify(path: &Path) -> anyhow::Result<Manifest> {
    let mut manifest: Option<Manifest> = None;
    let mut seen = 0;
    let mut archive = tar::Archive::new(BufReader::new(open(path)?));
    let entries = archive.entries().context("it is no tar archive")?;
    for entry in entries {
        let mut entry = entry.context("the archive is damaged or cut off")?;
        let name = entry.path()?.display().to_string();
        let Some(manifest) = &manifest else {
            ensure!(
                name == manifest::NAME,
                "it is no backup of Ostiary: it begins with {name}"
            );
            manifest = Some(read_manifest(&mut entry)?);
            continue;
        };
        let Some(expected) = manifest.members.get(seen) else {
            bail!("{name} does not belong into this backup");
        };
        seen += 1;
        let (bytes, sha256) = digest(&mut entry, &mut io::sink())
            .with_context(|| format!("{name} is damaged or cut off"))?;
        ensure!(bytes == entry.size(), "{name} is cut off");
        ensure!(
            (&name, bytes, &sha256) == (&expected.name, expected.bytes, &expected.sha256),
            "{name} is not what the manifest says of {}: the backup is damaged or was changed",
            expected.name
        );
    }
    let manifest = manifest.context("it is no backup of Ostiary: it is empty")?;
    if let Some(missing) = manifest.members.get(seen) {
        bail!("{} is missing: the backup is cut off", missing.name);
    }
    Ok(manifest)
}

fn read_manifest(entry: &mut impl Read) -> anyhow::Result<Manifest> {
    let mut text = Vec::new();
    entry.take(LARGEST_MANIFEST).read_to_end(&mut text)?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).context("the manifest is damaged")?;
    let format = value["format"].as_u64().unwrap_or(0);
    ensure!(
        format == u64::from(FORMAT),
        "the backup has the layout {format}; this program reads layout {FORMAT}"
    );
    serde_json::from_value(value).context("the manifest is damaged")
}

/// Hands over members, one after the other, each as a stream, in an archive that was verified.
///
/// # Errors
/// The archive cannot be read, or `take` fails.
pub(super) fn each(
    path: &Path,
    mut take: impl FnMut(&str, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(BufReader::new(open(path)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        take(&name, &mut entry)?;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn digest_of(path: &Path) -> anyhow::Result<(u64, String)> {
    digest(open(path)?, &mut io::sink())
        .with_context(|| format!("{} cannot be read", path.display()))
}

/// Size and SHA-256 of a stream, which goes on to `out`.
fn digest(mut from: impl Read, out: &mut impl Write) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hex::encode(hasher.finalize()))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes += read as u64;
        hasher.update(&buffer[..read]);
        out.write_all(&buffer[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn archive(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join("server.crt");
        std::fs::write(&file, "certificate").unwrap();
        let sources = [
            Source {
                name: "keys.toml".into(),
                content: Content::Text("[keys]\n".into()),
            },
            Source {
                name: "files/server.crt".into(),
                content: Content::File(file),
            },
        ];
        let manifest = Manifest {
            format: FORMAT,
            made_at: chrono::DateTime::UNIX_EPOCH,
            ostiary: "0".into(),
            postgres: "15.1".into(),
            migrations: [(1, "ab".to_owned())].into(),
            key_fingerprints: BTreeMap::new(),
            members: sources
                .iter()
                .map(|source| source.describe().unwrap())
                .collect(),
            left_out: Vec::new(),
        };
        let path = folder.join("backup.tar");
        write(File::create(&path).unwrap(), &manifest, &sources).unwrap();
        path
    }

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ostiary-archive-{}-{name}", std::process::id()))
    }

    #[test]
    fn what_was_packed_is_verified_and_comes_out_again() {
        let folder = folder("whole");
        let path = archive(&folder);
        assert_eq!(verify(&path).unwrap().members.len(), 2);
        let mut found = Vec::new();
        each(&path, |name, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            found.push((name.to_owned(), text));
            Ok(())
        })
        .unwrap();
        assert_eq!(found[1], ("keys.toml".into(), "[keys]\n".into()));
        assert_eq!(found[2], ("files/server.crt".into(), "certificate".into()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_byte_that_changed_and_an_end_that_is_missing_are_found() {
        let folder = folder("damaged");
        let path = archive(&folder);
        let whole = std::fs::read(&path).unwrap();
        let at = whole
            .windows(11)
            .position(|part| part == b"certificate")
            .unwrap();
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let error = format!("{:#}", verify(&path).unwrap_err());
        assert!(
            error.contains("files/server.crt is not what the manifest says"),
            "{error}"
        );
        std::fs::write(&path, &whole[..at + 3]).unwrap();
        let error = format!("{:#}", verify(&path).unwrap_err());
        assert!(error.contains("cut off"), "{error}");
        std::fs::write(&path, "no archive").unwrap();
        assert!(verify(&path).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
