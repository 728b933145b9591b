//! Browser extensions and installed software.

use super::Host;
use super::system::{home, person};
use crate::drift::Drift;
use crate::identity::Platform;
use crate::value::{Row, row};

fn extension(host: &Host<'_>, name: &str, identifier: &str, version: &str, store: bool) -> Row {
    let base = match host.identity.platform {
        Platform::Linux => ".config/google-chrome/Default",
        Platform::Darwin => "Library/Application Support/Google/Chrome/Default",
        Platform::Windows => "AppData\\Local\\Google\\Chrome\\User Data\\Default",
    };
    let profile = format!("{}/{base}", home(host));
    row! {
        "browser_type" => "chrome", "uid" => person(host), "name" => name, "profile" => "Person 1",
        "profile_path" => &profile, "identifier" => identifier, "version" => version, "description" => "",
        "update_url" => if store { "https://clients2.google.com/service/update2/crx" } else { "http://203.0.113.9/u.xml" },
        "author" => "", "persistent" => 0_i64, "path" => format!("{profile}/Extensions/{identifier}/{version}/"),
        "permissions" => if store { "storage" } else { "<all_urls>, tabs, webRequest" },
        "from_webstore" => if store { "true" } else { "false" }, "state" => "1",
    }
}

pub(super) fn chrome_extensions(host: &Host<'_>) -> Vec<Row> {
    let mut rows = vec![
        extension(
            host,
            "uBlock Origin",
            "cjpalhdlnbpafiamejdnhcphjbkeiagm",
            "1.57.2",
            true,
        ),
        extension(
            host,
            "Google Docs Offline",
            "ghbmnnjooekpmoecnnnilnnbdlolhkhi",
            "1.75.1",
            true,
        ),
    ];
    if host.has(Drift::BrowserExtension) {
        rows.push(extension(
            host,
            "Free Coupon Helper",
            "aaaabbbbccccddddeeeeffffgggghhhh",
            "0.0.1",
            false,
        ));
    }
    rows
}

pub(super) fn firefox_addons(host: &Host<'_>) -> Vec<Row> {
    vec![row! {
        "uid" => person(host), "name" => "Multi-Account Containers", "identifier" => "@testpilot-containers",
        "creator" => "Mozilla", "type" => "extension", "version" => "8.1.3", "description" => "", "source_url" => "",
        "visible" => 1_i64, "active" => 1_i64, "disabled" => 0_i64, "autoupdate" => 1_i64, "location" => "app-profile",
        "path" => format!("{}/.mozilla/firefox/x.default/extensions/containers.xpi", home(host)),
    }]
}

const DEB: [(&str, &str); 12] = [
    ("adduser", "3.137ubuntu1"),
    ("apt", "2.7.14build2"),
    ("bash", "5.2.21-2ubuntu4"),
    ("ca-certificates", "20240203"),
    ("coreutils", "9.4-3ubuntu6"),
    ("curl", "8.5.0-2ubuntu10.6"),
    ("libc6", "2.39-0ubuntu8.4"),
    ("libssl3t64", "3.0.13-0ubuntu3.5"),
    ("nginx", "1.24.0-2ubuntu7.3"),
    ("openssh-server", "1:9.6p1-3ubuntu13.11"),
    ("sudo", "1.9.15p5-3ubuntu5"),
    ("osquery", "5.23.1-1.linux"),
];

pub(super) fn deb_packages() -> Vec<Row> {
    DEB.map(|(name, version)| {
        row! {
            "name" => name, "version" => version, "source" => "", "size" => 100 + name.len() * 77, "arch" => "amd64",
            "revision" => version.rsplit_once('-').map_or("", |(_, revision)| revision), "status" => "install ok installed",
            "maintainer" => "Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>", "section" => "admin", "priority" => "optional",
        }
    })
    .to_vec()
}

pub(super) fn apps(host: &Host<'_>) -> Vec<Row> {
    [("Safari", "com.apple.Safari", "17.5"), ("Google Chrome", "com.google.Chrome", "126.0.6478.62"), ("Slack", "com.tinyspeck.slackmacgap", "4.38.125")]
        .map(|(name, bundle, version)| {
            row! {
                "name" => format!("{name}.app"), "path" => format!("/Applications/{name}.app"), "bundle_executable" => name,
                "bundle_identifier" => bundle, "bundle_name" => name, "bundle_short_version" => version, "bundle_version" => version,
                "bundle_package_type" => "APPL", "minimum_system_version" => "11.0", "last_opened_time" => host.booted,
            }
        })
        .to_vec()
}

pub(super) fn programs() -> Vec<Row> {
    [("7-Zip 24.06 (x64)", "24.06", "Igor Pavlov"), ("Google Chrome", "126.0.6478.62", "Google LLC"), ("osquery", "5.23.1", "osquery")]
        .map(|(name, version, publisher)| {
            row! {
                "name" => name, "version" => version, "install_location" => format!("C:\\Program Files\\{name}\\"), "install_source" => "",
                "language" => "1033", "publisher" => publisher, "uninstall_string" => "", "install_date" => "20260301", "identifying_number" => "",
            }
        })
        .to_vec()
}

pub(super) fn python_packages(host: &Host<'_>) -> Vec<Row> {
    let directory = format!("{}/lib/python3/site-packages", home(host));
    [
        ("pip", "24.0"),
        ("requests", "2.31.0"),
        ("urllib3", "2.0.7"),
    ]
    .map(|(name, version)| {
        row! {
            "name" => name, "version" => version, "summary" => "", "author" => "", "license" => "",
            "path" => format!("{directory}/{name}"), "directory" => &directory,
        }
    })
    .to_vec()
}
