//! `server.json`: how to reach what runs, for people and for programs; and the same in words.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Choices, Ground};

/// Writes the file, mode 0600.
pub(super) fn write(
    file: &Path,
    choices: &Choices,
    ground: &Ground,
    processes: &BTreeMap<String, u32>,
) -> anyhow::Result<()> {
    let status = json!({
        "api_url": format!("https://localhost:{}", choices.api_listen.port()),
        "api_ca_cert": ground.certificates.ca,
        "enroll_secret": ground.secrets.enroll_secret,
        "manager_url": format!("http://{}", choices.manager_listen),
        "admin_user": ground.secrets.admin_user,
        "admin_password": ground.secrets.admin_password,
        "api_token": ground.secrets.api_token,
        "database_url": ground.database_url,
        "redis_url": ground.redis_url,
        "mail_dir": ground.data.join("mail"),
        "fleet_control": ground.data.join("fleet.sock"),
        "processes": processes,
    });
    crate::write_private(file, &serde_json::to_vec_pretty(&status)?)
}

/// Says what a newcomer needs.
pub(super) fn announce(file: &Path, choices: &Choices, ground: &Ground) {
    println!();
    println!("Ostiary runs.");
    println!("  Manager   http://{}", choices.manager_listen);
    println!(
        "  Sign in   {} / {}",
        ground.secrets.admin_user, ground.secrets.admin_password
    );
    println!(
        "  Nodes     https://localhost:{} (CA: {})",
        choices.api_listen.port(),
        ground.certificates.ca.display()
    );
    println!("  Mail      {}", ground.data.join("mail").display());
    println!("  Logs      {}", ground.logs.display());
    println!("  All of it {}", file.display());
    if choices.simulated_nodes > 0 {
        println!(
            "{} simulated nodes enroll now; some 45 seconds after, one switches its firewall off, and a mail will tell of it.",
            choices.simulated_nodes
        );
    }
    println!("Ctrl-C stops everything.");
}
