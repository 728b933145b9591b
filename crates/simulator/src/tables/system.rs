//! The machine, its system, people and processes.

use super::Host;
use crate::drift::Drift;
use crate::identity::Platform;
use crate::value::{Row, raw_byte, row};

/// Name of the program that listens after [`Drift::ListeningPort`].
pub(super) const LISTENER: &str = "nc";

pub(super) fn system_info(host: &Host<'_>) -> Vec<Row> {
    let identity = host.identity;
    let arm = identity.platform == Platform::Darwin;
    vec![row! {
        "hostname" => &identity.hostname,
        "uuid" => &identity.uuid,
        "cpu_type" => if arm { "arm64e" } else { "x86_64" },
        "cpu_subtype" => if arm { "ARM64E" } else { "85" },
        "cpu_brand" => &identity.cpu,
        "cpu_physical_cores" => i64::from(identity.cores / 2),
        "cpu_logical_cores" => i64::from(identity.cores),
        "cpu_sockets" => 1_i64,
        "cpu_microcode" => if arm { "" } else { "0x2006e05" },
        "physical_memory" => identity.memory_gib << 30,
        "hardware_vendor" => &identity.vendor,
        "hardware_model" => &identity.model,
        "hardware_version" => "",
        "hardware_serial" => &identity.serial,
        "board_vendor" => &identity.vendor,
        "board_model" => "",
        "board_version" => "",
        "board_serial" => "",
        "computer_name" => identity.hostname.trim_end_matches(".local"),
        "local_hostname" => identity.hostname.trim_end_matches(".local"),
    }]
}

pub(super) fn os_version(host: &Host<'_>) -> Vec<Row> {
    vec![match host.identity.platform {
        Platform::Linux => row! {
            "name" => "Ubuntu", "version" => "24.04.2 LTS (Noble Numbat)", "major" => 24_i64, "minor" => "04",
            "patch" => 0_i64, "build" => "", "platform" => "ubuntu", "platform_like" => "debian",
            "codename" => "noble", "arch" => "x86_64",
        },
        Platform::Darwin => row! {
            "name" => "macOS", "version" => "14.5", "major" => 14_i64, "minor" => 5_i64, "patch" => 0_i64,
            "build" => "23F79", "platform" => "darwin", "platform_like" => "darwin", "codename" => "", "arch" => "arm64",
        },
        Platform::Windows => row! {
            "name" => "Microsoft Windows 11 Pro", "version" => "10.0.22631", "major" => 10_i64, "minor" => 0_i64,
            "patch" => "", "build" => "22631", "platform" => "windows", "platform_like" => "windows",
            "codename" => "Microsoft Windows 11 Pro", "arch" => "64-bit",
        },
    }]
}

pub(super) fn platform_info(host: &Host<'_>) -> Vec<Row> {
    // Virtual machines and Macs of Apple's own silicon often have none.
    if host.identity.platform == Platform::Darwin {
        return Vec::new();
    }
    vec![row! {
        "vendor" => &host.identity.vendor, "version" => "1.17.2", "date" => "04/18/2025", "revision" => "1.17",
        "extra" => "", "firmware_type" => "uefi", "address" => "0xf000", "size" => "16777216", "volume_size" => 0_i64,
    }]
}

pub(super) fn kernel_info(host: &Host<'_>) -> Vec<Row> {
    let (version, path) = match host.identity.platform {
        Platform::Linux => ("6.8.0-60-generic", "/boot/vmlinuz-6.8.0-60-generic"),
        Platform::Darwin => ("23.5.0", ""),
        Platform::Windows => ("10.0.22631.3593", "C:\\Windows\\System32\\ntoskrnl.exe"),
    };
    vec![row! {"version" => version, "arguments" => "", "path" => path, "device" => ""}]
}

pub(super) fn uptime(host: &Host<'_>) -> Vec<Row> {
    let total = host.now - host.booted;
    vec![row! {
        "days" => total / 86_400, "hours" => total / 3600 % 24, "minutes" => total / 60 % 60, "seconds" => total % 60,
        "total_seconds" => total,
    }]
}

pub(super) fn time(host: &Host<'_>) -> Vec<Row> {
    let calendar = crate::lines::calendar_time(host.now);
    vec![
        row! {"unix_time" => host.now, "timestamp" => calendar, "timezone" => "UTC", "local_timezone" => "UTC"},
    ]
}

fn user(uid: i64, name: &str, description: &str, directory: &str, shell: &str, uuid: &str) -> Row {
    row! {
        "uid" => uid, "gid" => uid, "uid_signed" => uid, "gid_signed" => uid, "username" => name,
        "description" => description, "directory" => directory, "shell" => shell, "uuid" => uuid,
    }
}

/// The uid of the person who uses the machine.
pub(super) fn person(host: &Host<'_>) -> i64 {
    match host.identity.platform {
        Platform::Linux => 1000,
        Platform::Darwin => 501,
        Platform::Windows => 1001,
    }
}

/// The folder of the person who uses the machine, without a separator at its end.
pub(super) fn home(host: &Host<'_>) -> String {
    let user = &host.identity.user;
    match host.identity.platform {
        Platform::Linux => format!("/home/{user}"),
        Platform::Darwin => format!("/Users/{user}"),
        Platform::Windows => format!("C:\\Users\\{user}"),
    }
}

pub(super) fn users(host: &Host<'_>) -> Vec<Row> {
    let name = host.identity.user.as_str();
    let full = format!("{}{} Müller", name[..1].to_uppercase(), &name[1..]);
    let home = home(host);
    match host.identity.platform {
        Platform::Linux => vec![
            user(0, "root", "root", "/root", "/bin/bash", ""),
            user(1, "daemon", "daemon", "/usr/sbin", "/usr/sbin/nologin", ""),
            user(
                33,
                "www-data",
                "www-data",
                "/var/www",
                "/usr/sbin/nologin",
                "",
            ),
            user(1000, name, &full, &home, "/bin/bash", ""),
        ],
        Platform::Darwin => vec![
            user(
                0,
                "root",
                "System Administrator",
                "/var/root",
                "/bin/sh",
                "FFFFEEEE-DDDD-CCCC-BBBB-AAAA00000000",
            ),
            user(
                501,
                name,
                &full,
                &home,
                "/bin/zsh",
                "0F3C9B52-5A7D-4E0B-9D31-7C52E4A8B901",
            ),
        ],
        Platform::Windows => vec![
            user(
                500,
                "Administrator",
                "Built-in account for administering",
                "",
                "C:\\Windows\\system32\\cmd.exe",
                "S-1-5-21-1-2-3-500",
            ),
            user(
                1001,
                name,
                &full,
                &home,
                "C:\\Windows\\system32\\cmd.exe",
                "S-1-5-21-1-2-3-1001",
            ),
        ],
    }
}

pub(super) fn logged_in_users(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "type" => "user", "user" => &host.identity.user, "tty" => "console", "host" => "", "time" => host.booted + 60, "pid" => 412_i64,
    }]
}

fn process(
    pid: i64,
    parent: i64,
    uid: i64,
    name: &str,
    path: &str,
    cmdline: &str,
    started: i64,
) -> Row {
    row! {
        "pid" => pid, "name" => name, "path" => path, "cmdline" => cmdline, "state" => "S", "cwd" => "/", "root" => "/",
        "uid" => uid, "gid" => uid, "euid" => uid, "egid" => uid, "on_disk" => 1_i64, "resident_size" => pid * 40_960,
        "total_size" => pid * 409_600, "user_time" => pid * 7, "system_time" => pid * 3, "start_time" => started,
        "parent" => parent, "pgroup" => pid, "threads" => 1 + pid % 7, "nice" => 0_i64,
    }
}

/// The pid of the program that listens after the drift.
pub(super) fn listener_pid(host: &Host<'_>) -> i64 {
    20_000 + (host.constant(2) % 10_000).cast_signed()
}

pub(super) fn processes(host: &Host<'_>) -> Vec<Row> {
    let boot = host.booted;
    let mut rows = match host.identity.platform {
        Platform::Linux => vec![
            process(
                1,
                0,
                0,
                "systemd",
                "/usr/lib/systemd/systemd",
                "/sbin/init splash",
                boot,
            ),
            process(
                412,
                1,
                0,
                "sshd",
                "/usr/sbin/sshd",
                "sshd: /usr/sbin/sshd -D",
                boot + 9,
            ),
            process(
                530,
                1,
                33,
                "nginx",
                "/usr/sbin/nginx",
                "nginx: worker process",
                boot + 11,
            ),
            process(
                901,
                1,
                0,
                "osqueryd",
                "/opt/osquery/bin/osqueryd",
                "/opt/osquery/bin/osqueryd --flagfile /etc/osquery/osquery.flags",
                host.started,
            ),
        ],
        Platform::Darwin => vec![
            process(1, 0, 0, "launchd", "/sbin/launchd", "/sbin/launchd", boot),
            process(
                333,
                1,
                0,
                "mDNSResponder",
                "/usr/sbin/mDNSResponder",
                "/usr/sbin/mDNSResponder",
                boot + 4,
            ),
            process(
                640,
                1,
                501,
                "Finder",
                "/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder",
                "Finder",
                boot + 30,
            ),
            process(
                901,
                1,
                0,
                "osqueryd",
                "/opt/osquery/lib/osquery.app/Contents/MacOS/osqueryd",
                "osqueryd --flagfile=/var/osquery/osquery.flags",
                host.started,
            ),
        ],
        Platform::Windows => vec![
            process(4, 0, 0, "System", "", "", boot),
            process(
                812,
                4,
                0,
                "svchost.exe",
                "C:\\Windows\\System32\\svchost.exe",
                "svchost.exe -k RPCSS -p",
                boot + 6,
            ),
            process(
                2040,
                812,
                1001,
                "explorer.exe",
                "C:\\Windows\\explorer.exe",
                "C:\\Windows\\Explorer.EXE",
                boot + 40,
            ),
            process(
                2901,
                812,
                0,
                "osqueryd.exe",
                "C:\\Program Files\\osquery\\osqueryd\\osqueryd.exe",
                "osqueryd.exe --flagfile=C:\\Program Files\\osquery\\osquery.flags",
                host.started,
            ),
        ],
    };
    if host.poison {
        let bytes = format!("--name={}A{}\u{1}caf\u{e9}", raw_byte(0xFF), raw_byte(0xC3));
        rows.push(process(
            7001,
            1,
            person(host),
            "odd",
            "/tmp/odd",
            &bytes,
            boot + 99,
        ));
    }
    if host.has(Drift::ListeningPort) {
        rows.push(process(
            listener_pid(host),
            1,
            person(host),
            LISTENER,
            "/tmp/.x/nc",
            "nc -l 4444",
            boot + 500,
        ));
    }
    rows
}

pub(super) fn launchd() -> Vec<Row> {
    ["com.apple.mDNSResponder", "com.apple.WindowServer", "io.osquery.agent"]
        .map(|label| {
            row! {
                "path" => format!("/Library/LaunchDaemons/{label}.plist"), "name" => format!("{label}.plist"),
                "label" => label, "program" => "", "run_at_load" => "1", "keep_alive" => "1", "disabled" => "",
                "program_arguments" => format!("/usr/libexec/{label}"),
            }
        })
        .to_vec()
}

pub(super) fn startup_items(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "name" => "Sync Client", "path" => format!("{}/sync", home(host)), "args" => "--background",
        "type" => "Startup Item", "source" => "", "status" => "enabled", "username" => &host.identity.user,
    }]
}

pub(super) fn services() -> Vec<Row> {
    [("WinDefend", "Microsoft Defender Antivirus Service"), ("mpssvc", "Windows Defender Firewall"), ("osqueryd", "osqueryd")]
        .map(|(name, display)| {
            row! {
                "name" => name, "service_type" => "OWN_PROCESS", "display_name" => display, "status" => "RUNNING",
                "pid" => 812_i64, "start_type" => "AUTO_START", "path" => format!("C:\\Windows\\System32\\{name}.exe"),
            }
        })
        .to_vec()
}
