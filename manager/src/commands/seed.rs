//! Commands that make things: users, tokens, secrets, destinations, rules, packs. With `--if-missing` a thing of that name that
//! exists is left alone, so that a script may run them again.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use ostiary_domain::ids::UserId;
use ostiary_store::{
    destinations as destination_store, enroll_secrets as secret_store, packs as pack_store,
    rule_edits, users as user_store,
};
use serde::Deserialize;
use serde_json::Value;

use crate::actions::api_tokens::{self, TokenDraft};
use crate::actions::config_change::Saving;
use crate::actions::config_import::{self, Import, ImportDraft, UploadedFile};
use crate::actions::destinations::{self, DestinationDraft};
use crate::actions::enroll_secrets::{self, SecretDraft};
use crate::actions::rules::{self, RuleDraft};
use crate::actions::users::{self, UserDraft};
use crate::auth::{Admin, Edit, Permit};
use crate::error::Error;
use crate::state::App;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a user of the manager. The password comes from standard input.
    CreateUser(CreateUser),
    /// Make an API token for a user, and print it; it is never shown again.
    CreateToken(CreateToken),
    /// Make an enroll secret, and print it.
    CreateEnrollSecret(CreateEnrollSecret),
    /// Make a destination for alerts; its settings come from standard input as a JSON object.
    CreateDestination(CreateDestination),
    /// Make a rule out of a JSON file with the fields of the rule's form.
    CreateRule(CreateRule),
    /// Import an osquery .conf or pack file.
    ImportPack(ImportPack),
}

#[derive(Debug, Args)]
pub(super) struct CreateUser {
    /// For signing in.
    #[arg(long)]
    name: String,
    /// viewer, editor or admin.
    #[arg(long)]
    role: String,
    /// Where to reach them.
    #[arg(long, default_value = "")]
    email: String,
    /// Read the password from standard input without asking (that is done anyway when it is no terminal).
    #[arg(long)]
    password_stdin: bool,
    /// Leave a user of this name alone.
    #[arg(long)]
    if_missing: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateToken {
    /// Whose rights it gets.
    #[arg(long)]
    user: String,
    /// What it is for.
    #[arg(long)]
    name: String,
    /// Days until it ends.
    #[arg(long, default_value = "")]
    expires_days: String,
}

#[derive(Debug, Args)]
pub(super) struct CreateEnrollSecret {
    /// Unique.
    #[arg(long)]
    name: String,
    /// Given to nodes that enroll with it, with commas between.
    #[arg(long, default_value = "")]
    tags: String,
    /// Days until it ends.
    #[arg(long, default_value = "")]
    expires_days: String,
    /// How often it may be used.
    #[arg(long, default_value = "")]
    use_limit: String,
    /// Which enrollments wait for an admin: none, reestablished (those that take over a silent node's identity) or all.
    #[arg(long, default_value = "none")]
    approval: String,
    /// Take the secret from standard input instead of making one up.
    #[arg(long)]
    secret_stdin: bool,
    /// Leave a secret of this name alone.
    #[arg(long)]
    if_missing: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateDestination {
    /// Unique.
    #[arg(long)]
    name: String,
    /// email, webhook, …
    #[arg(long)]
    kind: String,
    /// Read the settings from standard input (the only way there is; said for clarity).
    #[arg(long)]
    settings_stdin: bool,
    /// Leave a destination of this name alone.
    #[arg(long)]
    if_missing: bool,
    /// Change a destination of this name instead.
    #[arg(long, conflicts_with = "if_missing")]
    replace: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateRule {
    /// JSON: name, description, severity, conditions, scope, entity_columns, on_baseline, max_age_seconds, runbook_url, owner, watch,
    /// watch_count, watch_seconds, destinations.
    file: PathBuf,
    /// Names of further destinations; may be given more than once.
    #[arg(long)]
    destination: Vec<String>,
    /// Leave a rule of this name alone.
    #[arg(long)]
    if_missing: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportPack {
    /// osquery's .conf, or a pack.
    file: PathBuf,
    /// Tag expression: which nodes get it; all without.
    #[arg(long, default_value = "")]
    target: String,
    /// For a pack file; its file name without.
    #[arg(long)]
    name: Option<String>,
    /// Do nothing if there is a pack of that name.
    #[arg(long)]
    if_missing: bool,
}

impl Command {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<()> {
        match self {
            Self::CreateUser(arguments) => create_user(app, arguments).await,
            Self::CreateToken(arguments) => create_token(app, arguments).await,
            Self::CreateEnrollSecret(arguments) => create_enroll_secret(app, arguments).await,
            Self::CreateDestination(arguments) => create_destination(app, arguments).await,
            Self::CreateRule(arguments) => create_rule(app, arguments).await,
            Self::ImportPack(arguments) => import_pack(app, arguments).await,
        }
    }
}

/// What is wrong with a field, in a line each.
pub(super) fn explain(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(errors) => {
            let lines: Vec<String> = errors
                .0
                .iter()
                .map(|(field, sentence)| format!("{field}: {sentence}"))
                .collect();
            anyhow::anyhow!(lines.join("\n"))
        }
        other => other.into(),
    }
}

fn from_stdin(what: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("{what}, then Ctrl-D:");
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("standard input cannot be read")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn create_user(app: &App, arguments: CreateUser) -> anyhow::Result<()> {
    let known =
        user_store::find_credentials(&mut *app.db.acquire().await?, &arguments.name).await?;
    if arguments.if_missing && known.is_some() {
        return Ok(());
    }
    let password = from_stdin("Type the password")?;
    let draft = UserDraft {
        name: arguments.name,
        email: arguments.email,
        role: arguments.role,
    };
    let id = users::create(app, &Permit::<Admin>::for_command(), &draft, &password)
        .await
        .map_err(explain)?;
    println!("{id}");
    Ok(())
}

async fn create_token(app: &App, arguments: CreateToken) -> anyhow::Result<()> {
    let user = user_store::find_credentials(&mut *app.db.acquire().await?, &arguments.user).await?;
    let user = user.with_context(|| format!("there is no user {}", arguments.user))?;
    let draft = TokenDraft {
        name: arguments.name,
        expires_days: arguments.expires_days,
    };
    let permit = Permit::<Admin>::for_command();
    println!(
        "{}",
        api_tokens::create_for(app, &permit, UserId(user.id), &draft)
            .await
            .map_err(explain)?
    );
    Ok(())
}

async fn create_enroll_secret(app: &App, arguments: CreateEnrollSecret) -> anyhow::Result<()> {
    if arguments.if_missing
        && secret_store::exists(&mut *app.db.acquire().await?, &arguments.name).await?
    {
        return Ok(());
    }
    let draft = SecretDraft {
        name: arguments.name,
        tags: arguments.tags,
        expires_days: arguments.expires_days,
        use_limit: arguments.use_limit,
        approval: arguments.approval,
    };
    let permit = Permit::<Admin>::for_command();
    if arguments.secret_stdin {
        let secret = from_stdin("Type the secret")?;
        enroll_secrets::create_with(app, &permit, &draft, &secret)
            .await
            .map_err(explain)?;
    } else {
        println!(
            "{}",
            enroll_secrets::create(app, &permit, &draft)
                .await
                .map_err(explain)?
        );
    }
    Ok(())
}

async fn create_destination(app: &App, arguments: CreateDestination) -> anyhow::Result<()> {
    let known = destination_store::find_id(&mut *app.db.acquire().await?, &arguments.name).await?;
    if arguments.if_missing && known.is_some() {
        return Ok(());
    }
    tracing::debug!(
        settings_stdin = arguments.settings_stdin,
        "settings come from standard input"
    );
    let text = from_stdin("Type the settings as JSON")?;
    let settings: BTreeMap<String, Value> =
        serde_json::from_str(&text).context("the settings are no JSON object")?;
    let as_typed = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let fields = settings
        .into_iter()
        .map(|(name, value)| (name, as_typed(value)))
        .collect();
    let draft = DestinationDraft {
        name: arguments.name,
        kind: arguments.kind,
        enabled: true,
        tells_changes: true,
        fields,
        ..DestinationDraft::default()
    };
    let permit = Permit::<Admin>::for_command();
    let id = match known.filter(|_| arguments.replace) {
        Some(id) => {
            destinations::update(app, &permit, id, &draft)
                .await
                .map_err(explain)?;
            id
        }
        None => destinations::create(app, &permit, &draft)
            .await
            .map_err(explain)?,
    };
    println!("{id}");
    Ok(())
}

/// A rule in a file; what is left out has the form's default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    name: String,
    #[serde(default)]
    description: String,
    severity: String,
    conditions: Value,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    entity_columns: Vec<String>,
    #[serde(default)]
    on_baseline: bool,
    max_age_seconds: Option<i64>,
    #[serde(default)]
    runbook_url: String,
    #[serde(default)]
    owner: String,
    watch: Option<String>,
    watch_count: Option<u32>,
    watch_seconds: Option<u32>,
    /// By name.
    #[serde(default)]
    destinations: Vec<String>,
}

async fn create_rule(app: &App, arguments: CreateRule) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&arguments.file)
        .with_context(|| format!("{}", arguments.file.display()))?;
    let file: RuleFile =
        serde_json::from_str(&text).with_context(|| format!("{}", arguments.file.display()))?;
    let mut conn = app.db.acquire().await?;
    if arguments.if_missing && rule_edits::find_id(&mut conn, &file.name).await?.is_some() {
        return Ok(());
    }
    let mut destinations = Vec::new();
    for name in file.destinations.iter().chain(&arguments.destination) {
        match destination_store::find_id(&mut conn, name).await? {
            Some(id) => destinations.push(id.to_string()),
            None => bail!("there is no destination {name}"),
        }
    }
    drop(conn);
    let default = RuleDraft::new();
    let draft = RuleDraft {
        name: file.name,
        description: file.description,
        severity: file.severity,
        conditions: file.conditions.to_string(),
        scope: file.scope,
        entity_columns: file.entity_columns.join(", "),
        on_baseline: file.on_baseline,
        max_age_seconds: file
            .max_age_seconds
            .map_or(default.max_age_seconds, |seconds| seconds.to_string()),
        runbook_url: file.runbook_url,
        enabled: true,
        owner: file.owner,
        watch: file.watch.unwrap_or(default.watch),
        watch_count: file
            .watch_count
            .map_or_else(String::new, |count| count.to_string()),
        watch_seconds: file
            .watch_seconds
            .map_or_else(String::new, |seconds| seconds.to_string()),
        destinations,
    };
    println!(
        "{}",
        rules::create(app, &Permit::<Edit>::for_command(), &draft)
            .await
            .map_err(explain)?
    );
    Ok(())
}

async fn import_pack(app: &App, arguments: ImportPack) -> anyhow::Result<()> {
    let bytes =
        std::fs::read(&arguments.file).with_context(|| format!("{}", arguments.file.display()))?;
    let stem = arguments
        .file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = arguments.name.unwrap_or(stem);
    if arguments.if_missing
        && pack_store::find_id(&mut *app.db.acquire().await?, &name)
            .await?
            .is_some()
    {
        return Ok(());
    }
    let file = UploadedFile {
        name: arguments.file.display().to_string(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let draft = ImportDraft {
        files: vec![file],
        name,
        target: arguments.target,
        replace: false,
        switch_on: false,
    };
    let permit = Permit::<Edit>::for_command();
    let import = Import::read(&draft).map_err(explain)?;
    let shown = config_import::dry_run(app, &permit, &import)
        .await
        .map_err(explain)?;
    let report = config_import::apply(app, &permit, &import, &shown.digest, &Saving::at_once())
        .await
        .map_err(explain)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
