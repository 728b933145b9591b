//! Settings that the manager reads.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use ostiary_boot::seal::Key;
use ostiary_domain::carve::CarveOptions;
use ostiary_domain::osquery::aliases::Aliases;
use serde::Deserialize;

/// The sections that the manager needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    /// Logs of the process.
    pub log: ostiary_boot::telemetry::Options,
    /// Postgres.
    pub database: ostiary_store::Options,
    /// How others reach us.
    pub public: PublicOptions,
    /// Keys that seal.
    pub keys: KeyOptions,
    /// What leaves the house, for test messages.
    pub outputs: ostiary_outputs::Options,
    /// How changes of configs go out.
    pub rollouts: ostiary_domain::rollout::Plan,
    /// Files collected from nodes.
    #[serde(default)]
    pub carves: CarveOptions,
    /// Where they lie.
    #[serde(default)]
    pub blobs: ostiary_blobs::Options,
    /// What the api answers.
    #[serde(default)]
    pub api: ApiOptions,
    /// The manager itself.
    pub manager: ManagerOptions,
}

/// Of the settings `[api]` what the manager must know, too. The api owns the section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ApiOptions {
    /// Further paths by which nodes reach it.
    pub aliases: Aliases,
    /// For so many minutes after its last request a node counts as alive, and is handed to nobody.
    pub alive_minutes: u32,
}

impl Default for ApiOptions {
    /// As the api's own.
    fn default() -> Self {
        Self {
            aliases: Aliases::default(),
            alive_minutes: 10,
        }
    }
}

/// Settings `[public]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicOptions {
    /// `host:port` by which nodes reach the api.
    pub api_host: String,
    /// URL by which people reach the manager.
    pub manager_url: String,
}

/// Settings `[keys]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyOptions {
    /// Seals and finds enroll secrets.
    pub enroll: Key,
    /// Seals the settings of destinations.
    pub destinations: Key,
}

/// Settings `[manager]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// PEM file with the certificate chain; empty for plain HTTP.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate.
    pub private_key: PathBuf,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// A session ends after this long without a request, in minutes.
    pub session_idle_minutes: i64,
    /// A session ends this long after the sign-in in any case, in hours.
    pub session_hours: i64,
    /// Attempts to sign in per user name and window.
    pub sign_in_attempts_per_user: i32,
    /// Attempts to sign in per address and window.
    pub sign_in_attempts_per_address: i32,
    /// The window, in minutes.
    pub sign_in_window_minutes: i64,
    /// PEM file with the certificate that nodes shall trust, offered for download; never a key.
    pub ca_certificate: PathBuf,
    /// PEM file with the root that shall come: offered beside the present one, so that nodes trust both before it is needed.
    pub next_ca_certificate: PathBuf,
}

impl ManagerOptions {
    /// Does the listener itself speak TLS?
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

impl Settings {
    /// Do people reach us by https, here or at a proxy? Cookies are then marked as secure.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.manager.has_tls() || self.public.manager_url.starts_with("https://")
    }
}

#[cfg(test)]
mod tests {
    use ostiary_boot::settings::DEFAULTS;

    #[test]
    fn the_defaults_name_every_setting_of_the_manager() {
        let section = DEFAULTS
            .split("\n[manager]\n")
            .nth(1)
            .expect("there is a section [manager]");
        for name in [
            "listen",
            "certificate",
            "private_key",
            "trusted_proxies",
            "session_idle_minutes",
            "session_hours",
            "sign_in_attempts_per_user",
            "sign_in_attempts_per_address",
            "sign_in_window_minutes",
            "ca_certificate",
            "next_ca_certificate",
        ] {
            assert!(
                section.contains(&format!("\n{name} = ")),
                "{name} is missing"
            );
        }
    }
}
