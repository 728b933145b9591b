//! Since when osquery has a table or a column, where that matters to the versions of a fleet.

use crate::value::Row;
use crate::version::Version;

/// The first version with a table, of those that came after the oldest simulated one.
pub(super) fn table_since(table: &str) -> Version {
    match table {
        "windows_security_center" => Version(4, 3, 0),
        "bitlocker_info" => Version(3, 2, 4),
        _ => Version(0, 0, 0),
    }
}

const SINCE: [(&str, &str, Version); 24] = [
    ("os_version", "arch", Version(4, 4, 0)),
    ("osquery_info", "platform_mask", Version(4, 1, 1)),
    ("osquery_schedule", "denylisted", Version(4, 4, 0)),
    ("osquery_schedule", "wall_time_ms", Version(5, 3, 0)),
    ("osquery_schedule", "last_wall_time_ms", Version(5, 3, 0)),
    ("osquery_schedule", "last_user_time", Version(5, 3, 0)),
    ("osquery_schedule", "last_system_time", Version(5, 3, 0)),
    ("osquery_schedule", "last_memory", Version(5, 3, 0)),
    ("system_info", "cpu_sockets", Version(5, 9, 1)),
    ("system_info", "cpu_microcode", Version(3, 2, 4)),
    ("system_info", "board_vendor", Version(4, 4, 0)),
    ("system_info", "board_model", Version(4, 4, 0)),
    ("system_info", "board_version", Version(4, 4, 0)),
    ("system_info", "board_serial", Version(4, 4, 0)),
    ("platform_info", "firmware_type", Version(5, 5, 1)),
    ("chrome_extensions", "browser_type", Version(4, 7, 0)),
    ("chrome_extensions", "profile", Version(4, 0, 2)),
    ("chrome_extensions", "profile_path", Version(4, 7, 0)),
    ("chrome_extensions", "permissions", Version(3, 3, 2)),
    ("chrome_extensions", "from_webstore", Version(4, 7, 0)),
    ("chrome_extensions", "state", Version(4, 7, 0)),
    ("deb_packages", "status", Version(4, 3, 0)),
    ("deb_packages", "maintainer", Version(4, 4, 0)),
    ("disk_encryption", "encryption_status", Version(3, 3, 0)),
];

/// Drops the columns that this version does not have.
pub(super) fn keep_known(table: &str, version: Version, rows: &mut [Row]) {
    let missing: Vec<&str> = SINCE
        .iter()
        .filter(|(t, _, since)| *t == table && version < *since)
        .map(|(_, column, _)| *column)
        .collect();
    if !missing.is_empty() {
        rows.iter_mut()
            .for_each(|row| row.retain(|(name, _)| !missing.contains(&name.as_str())));
    }
}
