//! Fleet's YAML: documents of `fleetctl` (`apiVersion`, `kind`, `spec`), of its GitOps (`queries:`, `policies:`, `reports:`,
//! `labels:`, `agent_options:` at the top), and bare lists as in its `lib/` folder. The shapes are those of Fleet's
//! `docs/Configuration/yaml-files.md` and `docs/Configuration/configuration-files/README.md`.
//!
//! What osquery can be asked becomes queries; what Fleet alone does is named as odd and left out. Secrets in these files are never
//! kept. A document is bounded in depth and size, aliases included.

mod agent_options;
mod documents;
mod files;
mod mentions;
mod packs;
mod queries;
mod targets;
#[cfg(test)]
mod tests;

pub use files::{YamlFile, parse_yaml, parse_yaml_files};
