//! Commands for moving in and for configs in files. Each shows what it would do; with `--apply` it does exactly that.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::seed::explain;
use crate::actions::config_change::Saving;
use crate::actions::config_export::{self, ExportDraft};
use crate::actions::config_import::{self, Import, ImportDraft, Report, UploadedFile};
use crate::actions::resync;
use crate::actions::takeover::{self, DoormanImport, KeyFile};
use crate::auth::{Admin, Edit, Permit, View};
use crate::state::App;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Import osquery's .conf and pack files or Fleet's YAML.
    ImportConfig(ImportConfig),
    /// Print a config or a pack as a file that osqueryd reads.
    ExportConfig(ExportConfig),
    /// Take over a Doorman's database: nodes with their keys, tags, packs, queries, file paths, rules, users.
    ImportDoorman(ImportDoorman),
    /// Take over node keys of another manager from CSV: host_identifier, node_key, and if known hardware_uuid, hardware_serial,
    /// hostname, platform, tags.
    ImportNodeKeys(ImportNodeKeys),
    /// Have the nodes of a target send all rows of all their queries again, after a move or a restore.
    Resync(Resync),
}

#[derive(Debug, Args)]
pub(super) struct Resync {
    /// Tag expression; all nodes without.
    #[arg(long, default_value = "")]
    target: String,
    /// Do it, rather than only say how many nodes that would be.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportConfig {
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Tag expression: which nodes get it; all without.
    #[arg(long, default_value = "")]
    target: String,
    /// For a single pack file; its file name without.
    #[arg(long, default_value = "")]
    name: String,
    /// Remove what this target has and the files do not.
    #[arg(long)]
    replace: bool,
    /// Switch on what the files have and what is switched off here.
    #[arg(long)]
    switch_on: bool,
    /// Do it, rather than only say what would be done.
    #[arg(long)]
    apply: bool,
    /// Confirm options that could cut nodes off, by the word that was asked for.
    #[arg(long, default_value = "")]
    confirm: String,
    /// What was typed to confirm what is worse.
    #[arg(long, default_value = "")]
    confirm_typed: String,
}

#[derive(Debug, Args)]
pub(super) struct ExportConfig {
    /// Only this pack.
    #[arg(long, conflicts_with = "target")]
    pack: Option<String>,
    /// Tag expression: what has exactly this target. Without: what is for every node.
    #[arg(long, default_value = "")]
    target: String,
    /// All that a node of this target reads, rather than what has exactly this target.
    #[arg(long)]
    whole: bool,
    /// All that this node reads: its id, host name, host identifier or serial.
    #[arg(long, conflicts_with_all = ["pack", "target", "whole"])]
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ImportDoorman {
    /// Doorman's Postgres, as in SQLALCHEMY_DATABASE_URI. It is only read.
    #[arg(long, env = "DOORMAN_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Do it, rather than only say what would be done.
    #[arg(long)]
    apply: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportNodeKeys {
    /// The CSV file. Delete it afterwards: who has a key is that node.
    file: PathBuf,
    /// Do it, rather than only say what would be done.
    #[arg(long)]
    apply: bool,
}

impl Command {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<()> {
        match self {
            Self::ImportConfig(arguments) => import_config(app, arguments).await,
            Self::ExportConfig(arguments) => export_config(app, arguments).await,
            Self::ImportDoorman(arguments) => import_doorman(app, arguments).await,
            Self::ImportNodeKeys(arguments) => import_node_keys(app, arguments).await,
            Self::Resync(arguments) => resync_nodes(app, arguments).await,
        }
    }
}

fn tell(report: &Report, applied: bool) {
    print!("{}", report.as_text());
    println!(
        "{}",
        if applied {
            "Done."
        } else {
            "Nothing was done; --apply does this."
        }
    );
}

async fn import_config(app: &App, arguments: ImportConfig) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for path in &arguments.files {
        let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        files.push(UploadedFile {
            name: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        });
    }
    let draft = ImportDraft {
        files,
        name: arguments.name,
        target: arguments.target,
        replace: arguments.replace,
        switch_on: arguments.switch_on,
    };
    let permit = Permit::<Edit>::for_command();
    let import = Import::read(&draft).map_err(explain)?;
    let shown = config_import::dry_run(app, &permit, &import)
        .await
        .map_err(explain)?;
    if arguments.apply && !shown.is_empty() {
        let saving = Saving {
            confirmed: arguments.confirm,
            typed: arguments.confirm_typed,
            ..Saving::at_once()
        };
        config_import::apply(app, &permit, &import, &shown.digest, &saving)
            .await
            .map_err(explain)?;
    }
    tell(&shown, arguments.apply);
    Ok(())
}

async fn export_config(app: &App, arguments: ExportConfig) -> anyhow::Result<()> {
    let permit = Permit::<View>::for_command();
    let file = match &arguments.pack {
        Some(name) => config_export::pack_named(app, &permit, name).await,
        None => {
            let scope = match (&arguments.node, arguments.whole) {
                (Some(_), _) => "node",
                (None, true) => "whole",
                (None, false) => "exact",
            };
            let draft = ExportDraft {
                scope: scope.to_owned(),
                target: arguments.target,
                node: arguments.node.unwrap_or_default(),
            };
            let exported = config_export::config(app, &permit, &draft).await;
            exported.map(|(file, _)| file)
        }
    };
    print!("{}", file.map_err(explain)?.text);
    Ok(())
}

async fn import_doorman(app: &App, arguments: ImportDoorman) -> anyhow::Result<()> {
    // SQLAlchemy also says postgresql+psycopg2://.
    let url = match arguments.database_url.split_once("://") {
        Some((scheme, rest)) if scheme.starts_with("postgres") => format!("postgres://{rest}"),
        _ => bail!("--database-url is no URL of a Postgres"),
    };
    let import = DoormanImport::read(&url)
        .await
        .context("this is no Doorman's database, or it cannot be read")?;
    let permit = Permit::<Admin>::for_command();
    let shown = takeover::plan_doorman(app, &permit, &import)
        .await
        .map_err(explain)?;
    if arguments.apply && !shown.is_empty() {
        takeover::apply_doorman(app, &permit, &import, &shown.digest)
            .await
            .map_err(explain)?;
    }
    tell(&shown, arguments.apply);
    if !arguments.apply {
        println!(
            "Enroll secrets stand in Doorman's settings, not in its database: `create-enroll-secret --secret-stdin` takes them over.\n\
             After the move, have all nodes send everything again: their differences do not add up here otherwise (page Options)."
        );
    }
    Ok(())
}

async fn import_node_keys(app: &App, arguments: ImportNodeKeys) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("{}", arguments.file.display()))?;
    let file = KeyFile::read(&text).map_err(explain)?;
    let permit = Permit::<Admin>::for_command();
    let shown = takeover::dry_run_keys(app, &permit, &file)
        .await
        .map_err(explain)?;
    if arguments.apply && !shown.is_empty() {
        takeover::apply_keys(app, &permit, &file, &shown.digest)
            .await
            .map_err(explain)?;
    }
    tell(&shown, arguments.apply);
    Ok(())
}

async fn resync_nodes(app: &App, arguments: Resync) -> anyhow::Result<()> {
    let nodes = resync::reach(app, &arguments.target)
        .await
        .map_err(explain)?;
    if !arguments.yes {
        println!("{nodes} nodes would send everything again; --yes does this.");
        return Ok(());
    }
    let permit = Permit::<Edit>::for_command();
    let epoch = resync::resync(app, &permit, &arguments.target, &nodes.to_string())
        .await
        .map_err(explain)?;
    println!("{nodes} nodes send everything again, with schedule_epoch {epoch}.");
    Ok(())
}
