//! Telling a running fleet what to do, by lines over a Unix socket: `drift usb 3`, `recover usb 3`,
//! `misbehave wipe 3`, `behave poison 3`, `restart 3`, `status`. Each line gets one line of answer.

use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::fleet::Fleet;

/// Obeys one line.
///
/// # Errors
/// What was wrong with the line, in words.
pub fn obey(fleet: &Fleet, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| {
        word.parse::<usize>()
            .map_err(|_| format!("no number of a node: {word}"))
    };
    let done = |outcome: Result<(), crate::fleet::NoSuchNode>| {
        outcome.map(|()| "ok".to_owned()).map_err(|e| e.to_string())
    };
    match words[..] {
        ["drift", drift, node] => done(fleet.drift(number(node)?, drift.parse()?)),
        ["recover", drift, node] => done(fleet.recover(number(node)?, drift.parse()?)),
        ["misbehave", misbehaviour, node] => {
            done(fleet.misbehave(number(node)?, misbehaviour.parse()?))
        }
        ["behave", misbehaviour, node] => done(fleet.behave(number(node)?, misbehaviour.parse()?)),
        ["restart", node] => done(fleet.restart(number(node)?)),
        ["status"] => Ok(format!("{:?}", fleet.totals())),
        _ => Err(
            "say: drift|recover DRIFT NODE, misbehave|behave HOW NODE, restart NODE, status"
                .to_owned(),
        ),
    }
}

/// Listens at `path` until dropped. A socket left there by an earlier run is replaced.
///
/// # Errors
/// When nothing can be bound there.
pub async fn listen(fleet: &Fleet, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        if let Err(error) = serve(fleet, stream).await {
            tracing::debug!(%error, "A control connection broke off");
        }
    }
}

async fn serve(fleet: &Fleet, mut stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = obey(fleet, &line).unwrap_or_else(|error| format!("error: {error}"));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
