//! Firewalls, encryption and the system's own protections.

use super::Host;
use crate::drift::Drift;
use crate::value::{Row, row};

pub(super) fn alf(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "allow_signed_enabled" => 1_i64, "firewall_unload" => 0_i64, "global_state" => i64::from(!host.has(Drift::Firewall)),
        "logging_enabled" => 1_i64, "logging_option" => 0_i64, "stealth_enabled" => 0_i64, "version" => "1.6",
    }]
}

/// Chains with their policies, and the rules of INPUT while the firewall is on.
pub(super) fn iptables(host: &Host<'_>) -> Vec<Row> {
    let off = host.has(Drift::Firewall);
    let rule = |chain: &str, policy: &str, target: &str, protocol: i64, port: &str| {
        row! {
            "filter_name" => "filter", "chain" => chain, "policy" => policy, "target" => target, "protocol" => protocol,
            "src_port" => "", "dst_port" => port, "src_ip" => "0.0.0.0", "src_mask" => "0.0.0.0", "iniface" => "all",
            "iniface_mask" => "", "dst_ip" => "0.0.0.0", "dst_mask" => "0.0.0.0", "outiface" => "all", "outiface_mask" => "",
            "match" => "no", "packets" => 0_i64, "bytes" => 0_i64,
        }
    };
    let mut rows = vec![
        rule("INPUT", if off { "ACCEPT" } else { "DROP" }, "", 0, ""),
        rule("FORWARD", if off { "ACCEPT" } else { "DROP" }, "", 0, ""),
        rule("OUTPUT", "ACCEPT", "", 0, ""),
    ];
    if !off {
        rows.push(rule("INPUT", "", "ACCEPT", 6, "22:22"));
        rows.push(rule("INPUT", "", "ACCEPT", 6, "443:443"));
    }
    rows
}

pub(super) fn windows_security_center(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "firewall" => if host.has(Drift::Firewall) { "Poor" } else { "Good" }, "autoupdate" => "Good", "antivirus" => "Good",
        "internet_settings" => "Good", "windows_security_center_service" => "Good", "user_account_control" => "Good",
    }]
}

pub(super) fn disk_encryption(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "name" => "/dev/disk1s1", "uuid" => format!("{:012x}", host.constant(6)), "encrypted" => 1_i64, "type" => "AES-XTS",
        "encryption_status" => "encrypted",
    }]
}

pub(super) fn bitlocker_info(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "device_id" => "\\\\?\\Volume{1}\\", "drive_letter" => "C:", "persistent_volume_id" => format!("{{{:012X}}}", host.constant(6)),
        "conversion_status" => 1_i64, "protection_status" => 1_i64, "encryption_method" => "XTS-AES 128",
    }]
}

pub(super) fn sip_config() -> Vec<Row> {
    vec![row! {"config_flag" => "sip", "enabled" => 1_i64, "enabled_nvram" => 1_i64}]
}

pub(super) fn gatekeeper() -> Vec<Row> {
    vec![
        row! {"assessments_enabled" => 1_i64, "dev_id_enabled" => 1_i64, "version" => "14.5", "opaque_version" => "94"},
    ]
}
