//! What a backup reads of the settings: unlike the processes it needs keys as they are written, and the names of files.

use std::path::PathBuf;

use anyhow::Context as _;
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_boot::telemetry;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::archive::{Content, Source};
use super::manifest::{self, fingerprint_of_key};

/// Only what is needed; other settings of the same sections are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct BackupSettings {
    pub(super) log: telemetry::Options,
    keys: Keys,
    api: ApiFiles,
    manager: ManagerFiles,
    pub(super) backup: BackupOptions,
}

#[derive(Debug, Deserialize)]
struct Keys {
    enroll: SecretString,
    destinations: SecretString,
}

#[derive(Debug, Deserialize)]
struct ApiFiles {
    certificate: PathBuf,
    private_key: PathBuf,
    client_ca: Option<PathBuf>,
    next_certificate: Option<PathBuf>,
    next_private_key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct ManagerFiles {
    certificate: PathBuf,
    private_key: PathBuf,
    ca_certificate: PathBuf,
    next_ca_certificate: Option<PathBuf>,
}

/// Settings `[backup]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackupOptions {
    /// More files, e.g. the environment files of the processes. All must exist.
    pub(super) files: Vec<PathBuf>,
    /// A command that encrypts from its standard input to its standard output; empty for none.
    pub(super) encrypt: Vec<String>,
    /// How many backups of ours stay in a folder when a new one is made there; 0 for all.
    pub(super) keep: usize,
    /// The folder of `pg_dump`, `pg_restore` and `psql`; empty to look for them.
    pub(super) postgres_programs: PathBuf,
}

impl BackupSettings {
    /// Reads them.
    ///
    /// # Errors
    /// As [`load`].
    pub(super) fn read(arguments: &SettingsArgs) -> anyhow::Result<Self> {
        load(arguments)
    }

    fn keys(&self) -> [(&'static str, &str); 2] {
        [
            ("enroll", self.keys.enroll.expose_secret()),
            ("destinations", self.keys.destinations.expose_secret()),
        ]
    }

    /// Fingerprints of the keys in force.
    pub(super) fn key_fingerprints(&self) -> std::collections::BTreeMap<String, String> {
        self.keys()
            .into_iter()
            .map(|(name, key)| (name.to_owned(), fingerprint_of_key(key)))
            .collect()
    }

    /// The keys as a section of a settings file.
    pub(super) fn keys_file(&self) -> Source {
        let lines: String = self
            .keys()
            .into_iter()
            .map(|(name, key)| format!("{name} = \"{}\"\n", key.trim()))
            .collect();
        Source {
            name: manifest::KEYS.to_owned(),
            content: Content::Text(format!("[keys]\n{lines}")),
        }
    }

    /// Every file that settings name, and the settings file itself. Those of the other processes may lie on other machines: what is
    /// missing is given back as the second part.
    ///
    /// # Errors
    /// A file of `[backup] files` is missing.
    pub(super) fn files(
        &self,
        arguments: &SettingsArgs,
    ) -> anyhow::Result<(Vec<Source>, Vec<PathBuf>)> {
        for file in &self.backup.files {
            std::fs::metadata(file).with_context(|| {
                format!(
                    "[backup] files names {}, which cannot be read",
                    file.display()
                )
            })?;
        }
        let (api, manager) = (&self.api, &self.manager);
        let named = [
            arguments.file.as_ref(),
            Some(&api.certificate),
            Some(&api.private_key),
            api.client_ca.as_ref(),
            api.next_certificate.as_ref(),
            api.next_private_key.as_ref(),
            Some(&manager.certificate),
            Some(&manager.private_key),
            Some(&manager.ca_certificate),
            manager.next_ca_certificate.as_ref(),
        ];
        let mut paths: Vec<PathBuf> = named
            .into_iter()
            .flatten()
            .chain(&self.backup.files)
            .filter(|path| !path.as_os_str().is_empty())
            .cloned()
            .collect();
        paths.sort();
        paths.dedup();
        let (found, missing): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_file());
        let sources = found
            .into_iter()
            .map(|path| Source {
                name: format!(
                    "files/{}",
                    path.display().to_string().trim_start_matches('/')
                ),
                content: Content::File(path),
            })
            .collect();
        Ok((sources, missing))
    }
}
