//! The first contents of a development server, by the manager's own commands; everything that is there already stays as it is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::secrets::Secrets;
use super::{Choices, Ground, manager};

pub(super) async fn seed(
    choices: &Choices,
    ground: &Ground,
    secrets: &mut Secrets,
) -> anyhow::Result<()> {
    let url = ground.role_url("ostiary_manager");
    let run = async |arguments: &[&str], input: &str| {
        manager(choices, ground, &url, arguments).run(input).await
    };
    let user = secrets.admin_user.clone();
    run(
        &[
            "create-user",
            "--name",
            &user,
            "--role",
            "admin",
            "--password-stdin",
            "--if-missing",
        ],
        &secrets.admin_password,
    )
    .await?;
    if secrets.api_token.is_empty() {
        let token = run(
            &["create-token", "--user", &user, "--name", "script/server"],
            "",
        )
        .await?;
        secrets.api_token = token.trim().to_owned();
        secrets.save()?;
    }
    run(
        &[
            "create-enroll-secret",
            "--name",
            "simulated fleet",
            "--secret-stdin",
            "--if-missing",
        ],
        &secrets.enroll_secret,
    )
    .await?;
    let mail = json!({
        "server": ground.mail_address.ip(),
        "port": ground.mail_address.port(),
        "encryption": "none",
        "from": "Ostiary <ostiary@localhost>",
        "to": "admin@localhost",
    });
    // The catcher's port may be another than last time, so this one is brought up to date at each start.
    run(
        &[
            "create-destination",
            "--name",
            "mail",
            "--kind",
            "email",
            "--settings-stdin",
            "--replace",
        ],
        &mail.to_string(),
    )
    .await?;
    for file in files(&choices.sources.join("deploy/demo/packs"))? {
        run(
            &["import-pack", &file.display().to_string(), "--if-missing"],
            "",
        )
        .await?;
    }
    for file in files(&choices.sources.join("deploy/demo/rules"))? {
        run(
            &["create-rule", &file.display().to_string(), "--if-missing"],
            "",
        )
        .await?;
    }
    Ok(())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    Ok(files)
}
