//! A private Postgres in a folder: made when missing, started, stopped.
//!
//! It listens on a free port of 127.0.0.1 and asks for passwords. Postgres refuses to run as root, so root lends it another user.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::process::{Process, Recipe, wait_until};

/// The owner of the database, who may do everything in this private server.
const OWNER: &str = "ostiary";

/// What happens to data when the machine fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Kept,
    /// Gone for speed: for tests only.
    Careless,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    password: String,
    program_folder: PathBuf,
}

impl Postgres {
    /// Starts the server whose data lie in `folder`/postgres; makes it first if nothing is there. The same `port` may be asked for
    /// again after a restart; `None` takes a free one.
    ///
    /// # Errors
    /// Postgres is not installed, or does not start; the message holds its last words.
    pub async fn start(
        folder: &Path,
        durability: Durability,
        port: Option<u16>,
    ) -> anyhow::Result<Self> {
        let program_folder = find_programs()?;
        let account = Account::choose(folder)?;
        let data = folder.join("postgres");
        let password = match std::fs::read_to_string(folder.join("postgres-password")) {
            Ok(password) => password,
            Err(_) => init(&program_folder, &account, folder, &data).await?,
        };
        let port = match port {
            Some(port) => port,
            None => crate::free_port()?,
        };
        let mut command: Vec<String> = [
            program_folder.join("postgres").display().to_string(),
            "-D".into(),
            data.display().to_string(),
            "-p".into(),
            port.to_string(),
        ]
        .into();
        let careless = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
        ];
        let always = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "jit=off",
        ];
        let chosen = if durability == Durability::Careless {
            &careless[..]
        } else {
            &[]
        };
        for setting in always.iter().chain(chosen) {
            command.extend(["-c".into(), (*setting).into()]);
        }
        let log = folder.join("postgres.log");
        let recipe = account.apply(Recipe::new("postgres", command, &log));
        let mut process = recipe.start()?;
        let ready = wait_until("Postgres answers", Duration::from_secs(180), async || {
            matches!(process.ended(), Ok(Some(_))) || accepts(&program_folder, port).await
        })
        .await;
        if ready.is_err() || process.ended()?.is_some() {
            bail!(
                "Postgres does not start; the end of {}:\n{}",
                log.display(),
                process.last_words()
            );
        }
        Ok(Self {
            process,
            port,
            password,
            program_folder,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database, for its owner.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_of(OWNER, &self.password, database)
    }

    /// The URL of a database, for another role.
    #[must_use]
    pub fn url_of(&self, role: &str, password: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Runs SQL as the owner and returns what psql prints, bare and unaligned.
    ///
    /// # Errors
    /// psql or a statement failed.
    pub async fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let psql = self.program_folder.join("psql").display().to_string();
        let command = [
            &psql,
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            &self.bare_url(database),
        ];
        let mut recipe = Recipe::new(
            "psql",
            command.map(String::from).into(),
            Path::new("/dev/null"),
        );
        recipe.env = vec![("PGPASSWORD".into(), self.password.clone())];
        Ok(recipe.run(sql).await?.trim().to_owned())
    }

    /// Makes a database if it is missing.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn ensure_database(&self, name: &str) -> anyhow::Result<()> {
        let exists = self
            .sql(
                "postgres",
                &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"),
            )
            .await?;
        if exists.is_empty() {
            self.sql("postgres", &format!("CREATE DATABASE \"{name}\""))
                .await?;
        }
        Ok(())
    }

    /// Has it ended by itself? For a supervisor.
    ///
    /// # Errors
    /// The operating system does not know the process.
    pub fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Stops it: clients are cut off, everything committed is kept.
    pub async fn stop(self) {
        self.process
            .stop(Signal::INT, Duration::from_secs(120))
            .await;
    }

    /// Ends it as a crash would: no checkpoint, so the next start replays the log.
    pub async fn crash(self) {
        self.process
            .stop(Signal::QUIT, Duration::from_secs(120))
            .await;
    }

    /// A URL without the password, which would be seen in the list of processes.
    fn bare_url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}", self.port)
    }
}

/// Who runs the server.
#[derive(Debug)]
struct Account {
    user: Option<String>,
    pass_through: bool,
}

impl Account {
    fn choose(folder: &Path) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self {
                user: None,
                pass_through: false,
            });
        }
        let accounts =
            std::fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
        let user = ["postgres", "nobody"]
            .into_iter()
            .find(|user| accounts.lines().any(|line| line.starts_with(&format!("{user}:"))))
            .context("there is no user that could run Postgres, which refuses root: neither postgres nor nobody exists")?;
        let blocked = folder.ancestors().skip(1).any(|parent| {
            std::fs::metadata(parent)
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
        });
        Ok(Self {
            user: Some(user.into()),
            pass_through: blocked,
        })
    }

    fn apply(&self, mut recipe: Recipe) -> Recipe {
        recipe.user.clone_from(&self.user);
        recipe.pass_through = self.pass_through;
        recipe.folder = Some("/".into());
        recipe
    }
}

/// Makes the data folder, and returns the owner's password. The password file is written last: it marks a folder that is whole.
async fn init(
    programs: &Path,
    account: &Account,
    folder: &Path,
    data: &Path,
) -> anyhow::Result<String> {
    if data.exists() {
        std::fs::remove_dir_all(data)
            .with_context(|| format!("{} is half made and cannot be removed", data.display()))?;
    }
    std::fs::create_dir_all(data)?;
    if let Some(user) = &account.user {
        let accounts = std::fs::read_to_string("/etc/passwd")?;
        let line = accounts
            .lines()
            .find(|line| line.starts_with(&format!("{user}:")))
            .context("the user was just found")?;
        let ids: Vec<u32> = line
            .split(':')
            .skip(2)
            .take(2)
            .filter_map(|id| id.parse().ok())
            .collect();
        std::os::unix::fs::chown(data, ids.first().copied(), ids.get(1).copied())?;
    }
    std::fs::set_permissions(data, PermissionsExt::from_mode(0o700))?;
    if folder.metadata()?.uid() == rustix::process::geteuid().as_raw() {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o711))?;
    }
    // initdb opens the file by its path and as its own user, so a pipe would not do.
    let password = crate::random_hex(16);
    let file = folder.join("postgres-initial-password");
    crate::write_private(&file, password.as_bytes())?;
    let owner = data.metadata()?;
    std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid()))?;
    let command = [
        programs.join("initdb").display().to_string().as_str(),
        "-D",
        &data.display().to_string(),
        "-U",
        OWNER,
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--auth=scram-sha-256",
        &format!("--pwfile={}", file.display()),
    ]
    .map(String::from);
    let made = account
        .apply(Recipe::new(
            "initdb",
            command.into(),
            Path::new("/dev/null"),
        ))
        .run("")
        .await;
    std::fs::remove_file(&file)?;
    made?;
    crate::write_private(&folder.join("postgres-password"), password.as_bytes())?;
    Ok(password)
}

async fn accepts(programs: &Path, port: u16) -> bool {
    let program = programs.join("pg_isready").display().to_string();
    let command = [
        program.as_str(),
        "-q",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
    ]
    .map(String::from);
    Recipe::new("pg_isready", command.into(), Path::new("/dev/null"))
        .run("")
        .await
        .is_ok()
}

/// The folder of the newest installed server.
fn find_programs() -> anyhow::Result<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
    {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        folders.push((version, entry.path().join("bin")));
    }
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        folders.push((0, folder));
    }
    folders.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    folders
        .into_iter()
        .map(|(_, folder)| folder)
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .context("Postgres is not installed: run script/bootstrap")
}
