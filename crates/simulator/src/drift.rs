//! The four ways in which a node can drift from what it was. Which rows show it is the tables' matter.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A change that a fleet manager should notice.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// The firewall is off: `alf.global_state` 0 on macOS, `windows_security_center.firewall` `Poor` on
    /// Windows, the INPUT policy of `iptables` `ACCEPT` without rules on Linux.
    Firewall,
    /// A process listens on TCP port 4444: `listening_ports` and `processes`.
    ListeningPort,
    /// A browser extension from outside the store: `chrome_extensions`.
    BrowserExtension,
    /// A USB stick: `usb_devices`; Windows has no such table and shows `logical_drives` and `disk_info`.
    Usb,
}

impl Drift {
    /// All drifts.
    pub const ALL: [Drift; 4] = [
        Drift::Firewall,
        Drift::ListeningPort,
        Drift::BrowserExtension,
        Drift::Usb,
    ];

    /// The word that commands use.
    pub fn word(self) -> &'static str {
        match self {
            Drift::Firewall => "firewall",
            Drift::ListeningPort => "listening-port",
            Drift::BrowserExtension => "browser-extension",
            Drift::Usb => "usb",
        }
    }
}

impl FromStr for Drift {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Drift::ALL
            .into_iter()
            .find(|drift| drift.word() == word)
            .ok_or_else(|| format!("no such drift: {word}"))
    }
}
