//! Nodes: what is known of a machine, and its health as a word.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::osquery::EnrollRequest;

/// What targets and rules may ask of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// As the node named itself when it enrolled.
    pub host_identifier: String,
    /// `system_info.hostname`.
    pub hostname: String,
    /// What people call it: display name, else host name, else host identifier.
    pub name: String,
    /// `linux`, `darwin`, `windows`, `freebsd`, or empty.
    pub platform: String,
    /// `osquery_info.version`, e.g. `5.23.1`.
    pub osquery_version: String,
    /// Names of its tags.
    pub tags: Vec<String>,
}

/// How a node is doing, judged from the times of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It checks in and its results arrive.
    Online,
    /// It checks in, but results that should have come have not.
    Silent,
    /// It has not checked in for a while.
    Offline,
    /// An admin has switched it off.
    Disabled,
}

/// How long a node may be quiet before it gets another word.
#[derive(Debug, Clone, Copy)]
pub struct HealthLimits {
    /// Without any check-in for this long it is offline.
    pub offline_after: TimeDelta,
    /// Checking in, but without results for this long, it is silent.
    pub silent_after: TimeDelta,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            offline_after: TimeDelta::minutes(15),
            silent_after: TimeDelta::hours(2),
        }
    }
}

impl Health {
    /// Judges a node. `results_at` is when it last proved that its schedule runs (design: the built-in snapshot queries, which
    /// always have rows); a node that never did is measured from its enrollment.
    #[must_use]
    pub fn judge(
        disabled: bool,
        enrolled_at: DateTime<Utc>,
        last_seen_at: DateTime<Utc>,
        results_at: Option<DateTime<Utc>>,
        limits: &HealthLimits,
        now: DateTime<Utc>,
    ) -> Self {
        if disabled {
            Self::Disabled
        } else if now - last_seen_at > limits.offline_after {
            Self::Offline
        } else if now - results_at.unwrap_or(enrolled_at).max(enrolled_at) > limits.silent_after {
            Self::Silent
        } else {
            Self::Online
        }
    }

    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Silent => "silent",
            Self::Offline => "offline",
            Self::Disabled => "disabled",
        }
    }
}

/// What an enrollment tells about the machine, ready to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeDetails {
    /// As sent; `--host_identifier` of the node decides what it is.
    pub host_identifier: String,
    /// `system_info.hostname`.
    pub hostname: String,
    /// See [`platform_of`].
    pub platform: String,
    /// `os_version.name`.
    pub os_name: String,
    /// `os_version.version`.
    pub os_version: String,
    /// `osquery_info.version`.
    pub osquery_version: String,
    /// `osquery_info.uuid` or `system_info.uuid`, empty for placeholders.
    pub hardware_uuid: String,
    /// `system_info.hardware_serial`, empty for placeholders.
    pub hardware_serial: String,
    /// `system_info.hardware_vendor` and `hardware_model`.
    pub hardware_model: String,
    /// `osquery_info.instance_id`: random, kept in the node's database.
    pub instance_id: String,
}

impl NodeDetails {
    /// Reads what an enrollment says. Tables or columns that are absent stay empty: `host_details` came with osquery 2.8, and any
    /// column may be missing.
    #[must_use]
    pub fn of(request: &EnrollRequest) -> Self {
        let value = |table: &str, column: &str| {
            request
                .host_details
                .get(table)
                .and_then(|row| row.get(column))
                .and_then(|value| value.as_str())
                .map(|text| {
                    text.trim_matches(|c: char| c == '\u{FFFD}' || c.is_whitespace())
                        .to_owned()
                })
                .unwrap_or_default()
        };
        let either = |first: String, second: String| if first.is_empty() { second } else { first };
        let hardware_uuid = either(value("system_info", "uuid"), value("osquery_info", "uuid"));
        let serial = value("system_info", "hardware_serial");
        let model = format!(
            "{} {}",
            value("system_info", "hardware_vendor"),
            value("system_info", "hardware_model")
        );
        Self {
            host_identifier: request.host_identifier.clone(),
            hostname: either(
                value("system_info", "hostname"),
                value("system_info", "computer_name"),
            ),
            platform: platform_of(
                &request.platform_type,
                &value("osquery_info", "build_platform"),
                &value("os_version", "platform"),
            ),
            os_name: value("os_version", "name"),
            os_version: value("os_version", "version"),
            osquery_version: value("osquery_info", "version"),
            hardware_uuid,
            hardware_serial: serial,
            hardware_model: model.trim().to_owned(),
            instance_id: value("osquery_info", "instance_id"),
        }
        .without_placeholders()
    }

    /// Without what makers leave in firmware and what many machines share: nobody is known by that.
    #[must_use]
    pub fn without_placeholders(mut self) -> Self {
        if is_placeholder_uuid(self.hardware_uuid.trim()) {
            self.hardware_uuid.clear();
        }
        if is_placeholder_serial(self.hardware_serial.trim()) {
            self.hardware_serial.clear();
        }
        self
    }

    /// The identifiers by which the machine may be known again: kind and lower-cased value; empty ones and placeholders left out.
    ///
    /// Of a client that tells nothing else, a host identifier that is a UUID counts as that of its hardware: `--host_identifier=uuid`
    /// makes it that, and with `instance` it is unique, too.
    #[must_use]
    pub fn identifiers(&self) -> Vec<(IdentifierKind, String)> {
        let tells_nothing_else = self.instance_id.is_empty()
            && self.hardware_uuid.is_empty()
            && self.hardware_serial.is_empty();
        let hardware_uuid = if tells_nothing_else && is_uuid(&self.host_identifier) {
            &self.host_identifier
        } else {
            &self.hardware_uuid
        };
        [
            (IdentifierKind::Instance, &self.instance_id),
            (IdentifierKind::HardwareUuid, hardware_uuid),
            (IdentifierKind::Serial, &self.hardware_serial),
            (IdentifierKind::HostIdentifier, &self.host_identifier),
        ]
        .into_iter()
        .map(|(kind, value)| (kind, value.trim().to_lowercase()))
        .filter(|(_, value)| !value.is_empty() && !is_placeholder_uuid(value))
        .collect()
    }
}

/// What kind of identifier a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentifierKind {
    /// `osquery_info.instance_id`.
    Instance,
    /// SMBIOS or platform UUID.
    HardwareUuid,
    /// The maker's serial number.
    Serial,
    /// What the node calls itself.
    HostIdentifier,
}

impl IdentifierKind {
    /// As it stands in `node_identifiers.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::HardwareUuid => "hardware_uuid",
            Self::Serial => "serial",
            Self::HostIdentifier => "host_identifier",
        }
    }

    /// The kind of a `node_identifiers.kind`.
    #[must_use]
    pub fn from_str_opt(text: &str) -> Option<Self> {
        [
            Self::Instance,
            Self::HardwareUuid,
            Self::Serial,
            Self::HostIdentifier,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// The build platform of an osqueryd, which decides what queries it runs: from `osquery_info.build_platform`, else from the bits
/// of `platform_type` (2 Windows, 8 Linux, 16 macOS, 32 FreeBSD; `osquery/utils/info/platform_type.h`), else from
/// `os_version.platform`.
#[must_use]
pub fn platform_of(platform_type: &str, build_platform: &str, os_platform: &str) -> String {
    let known = |text: &str| {
        ["linux", "darwin", "windows", "freebsd"]
            .into_iter()
            .find(|known| *known == text)
    };
    if let Some(platform) = known(build_platform) {
        return platform.to_owned();
    }
    let bits: u32 = platform_type.trim().parse().unwrap_or(0);
    for (bit, name) in [
        (16, "darwin"),
        (32, "freebsd"),
        (8, "linux"),
        (2, "windows"),
    ] {
        if bits & bit != 0 {
            return name.to_owned();
        }
    }
    match os_platform {
        "" => String::new(),
        platform => known(platform).unwrap_or("linux").to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let text = text.trim();
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// UUIDs that makers leave in firmware and that many machines share; osquery itself refuses these four.
fn is_placeholder_uuid(uuid: &str) -> bool {
    const PLACEHOLDERS: [&str; 5] = [
        "00000000-0000-0000-0000-000000000000",
        "03000200-0400-0500-0006-000700080009",
        "03020100-0504-0706-0809-0a0b0c0d0e0f",
        "10000000-0000-8000-0040-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ];
    PLACEHOLDERS
        .iter()
        .any(|placeholder| placeholder.eq_ignore_ascii_case(uuid))
}

fn is_placeholder_serial(serial: &str) -> bool {
    const PLACEHOLDERS: [&str; 8] = [
        "0",
        "none",
        "-1",
        "default string",
        "system serial number",
        "to be filled by o.e.m.",
        "not specified",
        "not available",
    ];
    PLACEHOLDERS
        .iter()
        .any(|placeholder| placeholder.eq_ignore_ascii_case(serial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_found_by_build_then_by_bits_then_by_name() {
        let cases = [
            ("9", "linux", "ubuntu", "linux"),
            ("21", "", "", "darwin"),
            ("2", "", "", "windows"),
            ("37", "", "", "freebsd"),
            ("9", "", "", "linux"),
            ("", "", "darwin", "darwin"),
            ("", "", "ubuntu", "linux"),
            ("", "", "", ""),
            ("not a number", "", "windows", "windows"),
        ];
        for (bits, build, os, expected) in cases {
            assert_eq!(
                platform_of(bits, build, os),
                expected,
                "{bits} {build} {os}"
            );
        }
    }

    #[test]
    fn a_node_is_judged_by_its_requests() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let limits = HealthLimits::default();
        let ago = |minutes| now - TimeDelta::minutes(minutes);
        let cases = [
            (true, ago(1), ago(1), None, Health::Disabled),
            (false, ago(600), ago(16), Some(ago(16)), Health::Offline),
            (false, ago(600), ago(1), Some(ago(121)), Health::Silent),
            (false, ago(600), ago(1), None, Health::Silent),
            (false, ago(10), ago(1), None, Health::Online),
            (false, ago(10), ago(1), Some(ago(500)), Health::Online),
            (false, ago(600), ago(1), Some(ago(5)), Health::Online),
        ];
        for (disabled, enrolled, seen, results, expected) in cases {
            assert_eq!(
                Health::judge(disabled, enrolled, seen, results, &limits, now),
                expected
            );
        }
    }
}
