//! The programs of Postgres: finding ones that fit the server, and running them without a password on a command line, where others
//! could read it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio_util::sync::CancellationToken;

/// Where packages put them beside `PATH`.
const PACKAGED: &str = "/usr/lib/postgresql";

/// How the programs reach the database.
#[derive(Clone)]
pub(super) struct Access {
    /// Without the password.
    url: String,
    password: Option<String>,
}

impl Access {
    /// Takes the URL of the settings apart.
    pub(super) fn new(url: &str) -> Self {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self {
                url: url.to_owned(),
                password: None,
            };
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let Some((user, host)) = authority.rsplit_once('@') else {
            return Self {
                url: url.to_owned(),
                password: None,
            };
        };
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(decode(password))),
            None => (user, None),
        };
        Self {
            url: format!("{scheme}://{name}@{host}{path}"),
            password,
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }
}

/// Resolves `%2F` and the like.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let mut byte = [0];
        if *first == b'%'
            && after.len() >= 2
            && hex::decode_to_slice(&after[..2], &mut byte).is_ok()
        {
            bytes.push(byte[0]);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program with its major version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    path: PathBuf,
    major: u32,
}

/// Finds a program that can talk to a server of this major version: of the same if there is one, else the next newer. An older one
/// refuses, or misses what it does not know.
///
/// # Errors
/// There is none; the message names those that were found.
pub(super) fn find(program: &str, server: u32, folder: &Path) -> anyhow::Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if folder.as_os_str().is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        candidates.extend(std::env::split_paths(&path));
        let packaged = std::fs::read_dir(PACKAGED).into_iter().flatten().flatten();
        candidates.extend(packaged.map(|entry| entry.path().join("bin")));
    } else {
        candidates.push(folder.to_owned());
    }
    let found: Vec<Found> = candidates
        .into_iter()
        .map(|folder| folder.join(program))
        .filter(|path| path.is_file())
        .filter_map(|path| {
            Some(Found {
                major: major_of(&path)?,
                path,
            })
        })
        .collect();
    choose(&found, server).map(|found| found.path.clone()).with_context(|| {
        let known: Vec<String> = found
            .iter()
            .map(|found| format!("{} of Postgres {}", found.path.display(), found.major))
            .collect();
        format!(
            "the server is Postgres {server}, and needs a {program} of {server} or newer; found: {}. Install postgresql-client-{server}, \
             or name the folder in [backup] postgres_programs",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )
    })
}

fn choose(found: &[Found], server: u32) -> Option<&Found> {
    found
        .iter()
        .filter(|found| found.major >= server)
        .min_by_key(|found| found.major)
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn major_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<u32> {
    let version = text.split(')').nth(1)?.trim();
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Dumps the database into `out`.
///
/// # Errors
/// `pg_dump` failed; the message holds what it said.
pub(super) fn dump(program: &Path, access: &Access, out: &mut impl Write) -> anyhow::Result<()> {
    let mut child = access
        .command(program)
        .args(["--format=custom", "--compress=0", "--no-owner", "--no-password"])
        // Worthless after a restore, and nothing to be carried around.
        .args(["--exclude-table-data=sessions", "--exclude-table-data=sign_in_attempts"])
        .arg(format!("--dbname={}", access.url))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("pg_dump cannot be started")?;
    let words = listen(child.stderr.take());
    let mut dump = child.stdout.take().context("its output is piped")?;
    let copied = io::copy(&mut dump, out);
    drop(dump);
    let status = child.wait()?;
    let words = words.join().unwrap_or_default();
    ensure!(status.success(), "pg_dump failed: {words}");
    copied.context("the dump cannot be written")?;
    Ok(())
}

/// How a dump is put back.
pub(super) struct Putting<'a> {
    /// The program `psql`.
    pub(super) psql: &'a Path,
    /// The program `pg_restore`.
    pub(super) pg_restore: &'a Path,
    /// To which database.
    pub(super) access: &'a Access,
    /// What makes room for it, in the same transaction.
    pub(super) before: &'a str,
    /// What is done after it, in the same transaction.
    pub(super) after: &'a str,
    /// Nothing stays once this is cancelled, unless all is done.
    pub(super) stop: &'a CancellationToken,
}

impl Putting<'_> {
    /// Puts a dump into the database, in one transaction.
    ///
    /// **Invariant:** it is only committed after `pg_restore` has ended well: of a dump that is cut off nothing stays.
    ///
    /// # Errors
    /// A program failed; the message holds what it said, and the database is as it was.
    pub(super) fn restore(&self, dump: &mut dyn Read) -> anyhow::Result<()> {
        let mut target = self
            .access
            .command(self.psql)
            .args([
                "--no-psqlrc",
                "--quiet",
                "--no-password",
                "--set=ON_ERROR_STOP=1",
                "--output=/dev/null",
            ])
            .arg(format!("--dbname={}", self.access.url))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("psql cannot be started")?;
        let words = listen(target.stderr.take());
        let mut statements = target.stdin.take().context("its input is piped")?;
        let fed = self.feed(&mut target, &mut statements, dump);
        // Without the COMMIT psql ends at the end of its input, and Postgres rolls back.
        drop(statements);
        let status = target.wait()?;
        let words = words.join().unwrap_or_default();
        if status.success() {
            return fed;
        }
        // However the feeding went: all of it may lie in a pipe, and Ctrl-C reaches psql, too.
        ensure!(!self.stop.is_cancelled(), "it was stopped");
        bail!("Postgres refuses the dump: {words}")
    }

    fn feed(
        &self,
        target: &mut Child,
        statements: &mut (impl Write + Send),
        dump: &mut dyn Read,
    ) -> anyhow::Result<()> {
        statements.write_all(b"BEGIN;\n")?;
        statements.write_all(self.before.as_bytes())?;
        let mut source = Command::new(self.pg_restore)
            .args(["--no-owner", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("pg_restore cannot be started")?;
        let words = listen(source.stderr.take());
        let mut input = source.stdin.take().context("its input is piped")?;
        let mut output = source.stdout.take().context("its output is piped")?;
        let (read, written, status) = std::thread::scope(|scope| {
            let written =
                scope.spawn(move || io::copy(&mut output, statements).map(|_| statements));
            let status = scope.spawn(|| self.watch(&mut source, target));
            let read = io::copy(dump, &mut input);
            drop(input);
            (read, written.join(), status.join())
        });
        let status =
            status.map_err(|_| anyhow::anyhow!("the thread that waits has panicked"))??;
        ensure!(!self.stop.is_cancelled(), "it was stopped");
        let words = words.join().unwrap_or_default();
        ensure!(status.success(), "pg_restore cannot read the dump: {words}");
        read.context("the dump cannot be read")?;
        let statements = written
            .map_err(|_| anyhow::anyhow!("the thread that feeds psql has panicked"))?
            .context("psql takes no more")?;
        statements.write_all(self.after.as_bytes())?;
        statements.write_all(b"\nCOMMIT;\n")?;
        Ok(())
    }

    /// Waits for the one that reads the dump. Who wants to stop need not wait until the other has built an index.
    fn watch(&self, source: &mut Child, target: &mut Child) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = source.try_wait()? {
                return Ok(status);
            }
            if self.stop.is_cancelled() {
                // One that has ended meanwhile is no trouble.
                let _ = target.kill();
                source.kill()?;
                return source.wait();
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// How often it is looked whether a program has ended, or shall.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Collects what a program says, so that it never waits for us to listen.
fn listen(stderr: Option<std::process::ChildStderr>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut words = String::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_string(&mut words);
        }
        let end = words
            .trim()
            .char_indices()
            .rev()
            .nth(2_000)
            .map_or(0, |(at, _)| at);
        words.trim()[end..].to_owned()
    })
}

/// Pipes a file through a command of the operator's, e.g. `age --recipient …`, into `out`.
///
/// # Errors
/// The command cannot be started or fails.
pub(super) fn filter(command: &[String], input: &Path, out: std::fs::File) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("the command is empty")?;
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let output = Command::new(program)
        .args(arguments)
        .stdin(std::fs::File::open(input)?)
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?
        .wait_with_output()?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_stands_in_the_url_that_programs_get() {
        for (url, bare, password) in [
            (
                "postgres://o:p%40ss%2Fw@db:5432/ostiary?sslmode=require",
                "postgres://o@db:5432/ostiary?sslmode=require",
                Some("p@ss/w"),
            ),
            ("postgres://o@127.0.0.1/x", "postgres://o@127.0.0.1/x", None),
            ("postgres:///x?host=/run", "postgres:///x?host=/run", None),
            ("postgres://h/x?user=a@b", "postgres://h/x?user=a@b", None),
        ] {
            let access = Access::new(url);
            assert_eq!(
                (access.url.as_str(), access.password.as_deref()),
                (bare, password)
            );
        }
    }

    #[test]
    fn the_program_of_the_servers_version_is_taken_else_the_next_newer() {
        let found = |majors: &[u32]| {
            majors
                .iter()
                .map(|major| Found {
                    path: PathBuf::from(format!("/{major}/pg_dump")),
                    major: *major,
                })
                .collect::<Vec<_>>()
        };
        let chosen =
            |majors: &[u32], server| choose(&found(majors), server).map(|found| found.major);
        assert_eq!(chosen(&[13, 17, 15, 16], 15), Some(15));
        assert_eq!(chosen(&[13, 17, 16], 15), Some(16));
        assert_eq!(chosen(&[13, 14], 15), None);
        assert_eq!(
            parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_version("nonsense"), None);
        let error = find("pg_dump", 9_999, Path::new("/nowhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("found: none"), "{error}");
    }
}
