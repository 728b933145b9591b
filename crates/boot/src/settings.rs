//! Settings: the defaults of `deploy/settings.default.toml`, then a TOML file, then the environment.
//!
//! Each crate owns the `Options` it needs; a binary's `Settings` is a struct of those, one field a section, and skips the sections
//! of the others. An environment variable names section and field with two underscores between: `OSTIARY_DATABASE__URL` is
//! `[database] url`. Variables with a single underscore (`OSTIARY_DATA`, …) belong to our scripts and are no settings.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use serde::Deserialize;

/// Documentation and defaults in one: the same file for all three processes.
pub const DEFAULTS: &str = include_str!("../../../deploy/settings.default.toml");

/// What every process takes on its command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsArgs {
    /// TOML file with settings; what it leaves out keeps its default.
    #[arg(long = "settings", env = "OSTIARY_SETTINGS", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Reads the settings.
///
/// # Errors
/// The file is missing or no TOML, a section is unknown, or a value does not fit; the message names it.
pub fn load<S: for<'de> Deserialize<'de>>(args: &SettingsArgs) -> anyhow::Result<S> {
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    if let Some(file) = &args.file {
        check_sections(file)?;
        figment = figment.merge(Toml::file_exact(file));
    }
    let environment = Env::prefixed("OSTIARY_")
        .filter(|name| name.as_str().contains("__"))
        .split("__");
    figment
        .merge(environment)
        .extract()
        .context("the settings cannot be read")
}

/// Each process skips the sections of the others, so a misspelt section would go unnoticed if nobody compared.
fn check_sections(file: &Path) -> anyhow::Result<()> {
    let sections = |figment: Figment| -> anyhow::Result<Vec<String>> {
        let value: figment::value::Dict = figment.extract()?;
        Ok(value.into_keys().collect())
    };
    let known = sections(Figment::from(Toml::string(DEFAULTS)))?;
    let given = sections(Figment::from(Toml::file_exact(file)))
        .with_context(|| format!("{} cannot be read", file.display()))?;
    match given.iter().find(|section| !known.contains(section)) {
        Some(unknown) => bail!(
            "{}: there is no section [{unknown}]; there are {}",
            file.display(),
            known.join(", ")
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct OnlyLog {
        log: crate::telemetry::Options,
    }

    #[test]
    fn the_defaults_can_be_read_section_by_section() {
        let settings: OnlyLog = load(&SettingsArgs::default()).unwrap();
        assert!(settings.log.filter.contains("info"));
    }

    #[test]
    fn a_misspelt_section_is_named() {
        let file =
            std::env::temp_dir().join(format!("ostiary-settings-{}.toml", std::process::id()));
        std::fs::write(&file, "[logg]\nfilter = \"info\"\n").unwrap();
        let error = load::<OnlyLog>(&SettingsArgs {
            file: Some(file.clone()),
        })
        .err()
        .unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(error.to_string().contains("no section [logg]"), "{error}");
    }
}
