//! Child processes that end with us: started under `setpriv --pdeathsig`, logged to a file, stopped by signal and patience.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The word it is known by: `api`, `postgres`, …
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, beside ours.
    pub env: Vec<(String, String)>,
    /// Its output goes to the end of this file.
    pub log: PathBuf,
    /// The user to become, if not ourselves.
    pub user: Option<String>,
    /// The folder it starts in.
    pub folder: Option<PathBuf>,
    /// May it pass through folders that its user may not enter? Only needed below a private home, e.g. of root.
    pub pass_through: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    /// As in its recipe.
    pub name: String,
    /// Its id.
    pub pid: u32,
    child: Child,
    log: PathBuf,
}

impl Recipe {
    /// A process of our own user.
    #[must_use]
    pub fn new(name: &str, command: Vec<String>, log: &Path) -> Self {
        Self {
            name: name.into(),
            command,
            env: Vec::new(),
            log: log.into(),
            user: None,
            folder: None,
            pass_through: false,
        }
    }

    /// The command line, under `setpriv`: the process gets a SIGTERM when we die, however we die. Call from a thread that lives as
    /// long as the process should (the kernel watches the thread, not the process).
    fn wrapped(&self) -> Vec<String> {
        let mut line: Vec<String> = ["setpriv", "--pdeathsig", "TERM"].map(String::from).into();
        if let Some(user) = &self.user {
            line.extend(["--reuid", user, "--regid", user, "--init-groups"].map(String::from));
        }
        if self.user.is_some() && self.pass_through {
            line.extend(
                ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"].map(String::from),
            );
        }
        line.push("--".into());
        line.extend(self.command.iter().cloned());
        line
    }

    /// Starts the process.
    ///
    /// # Errors
    /// The program or its log file is missing.
    pub fn start(&self) -> anyhow::Result<Process> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("{} cannot be opened", self.log.display()))?;
        let line = self.wrapped();
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))?;
        let pid = child
            .id()
            .context("a process that was just started has an id")?;
        Ok(Process {
            name: self.name.clone(),
            pid,
            child,
            log: self.log.clone(),
        })
    }

    /// Runs it to its end, with a text on its standard input, and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or fails; the message holds the end of what it said.
    pub async fn run(&self, input: &str) -> anyhow::Result<String> {
        use tokio::io::AsyncWriteExt as _;
        let line = self.wrapped();
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it says last goes into our message: a backtrace would push the reason out.
            .env_remove("RUST_BACKTRACE")
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))?;
        let mut stdin = child.stdin.take().context("the input was asked for")?;
        // A program that does not read its input may have closed it already: its exit status tells what matters.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} failed ({}): {}",
                self.name,
                output.status,
                last_lines(&said, 12)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Recipe {
    /// Starts a server and asks again and again whether it is ready.
    ///
    /// # Errors
    /// It ends instead, or takes longer than three minutes; the message holds its last words.
    pub async fn start_server(
        &self,
        mut is_ready: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<Process> {
        let mut process = self.start()?;
        let ready = wait_until(&self.name, Duration::from_secs(180), async || {
            matches!(process.ended(), Ok(Some(_))) || is_ready().await
        })
        .await;
        if ready.is_err() || process.ended()?.is_some() {
            bail!(
                "{} does not start; the end of {}:\n{}",
                self.name,
                self.log.display(),
                process.last_words()
            );
        }
        Ok(process)
    }
}

/// A program of the system's: in PATH, else where Debian puts servers, which is in nobody's PATH but root's.
///
/// # Errors
/// It is not installed.
pub fn find_program(name: &str) -> anyhow::Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .map(|program| program.to_string_lossy().into_owned())
        .with_context(|| format!("{name} is not installed: script/bootstrap --tests installs it"))
}

impl Process {
    /// Has it ended?
    ///
    /// # Errors
    /// The operating system does not know the process.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The operating system does not know the process.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself: then there is nobody to tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, waits, and ends it by force when it does not.
    pub async fn stop(mut self, ask: Signal, patience: Duration) {
        self.signal(ask);
        if tokio::time::timeout(patience, self.child.wait())
            .await
            .is_err()
        {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }

    /// The end of its log, for a message.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&std::fs::read_to_string(&self.log).unwrap_or_default(), 12)
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Polls until something holds.
///
/// # Errors
/// It does not within `patience`; the message names `what`.
pub async fn wait_until<F: AsyncFnMut() -> bool>(
    what: &str,
    patience: Duration,
    mut holds: F,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    while !holds().await {
        if tokio::time::Instant::now() > deadline {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
