//! A throw-away Postgres and Redis around one command.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::postgres::{Durability, Postgres};
use crate::redis::Redis;

/// Runs the command with both servers and returns its exit code. They are stopped and their files removed, also on SIGINT,
/// SIGTERM and SIGHUP, which go to the command first.
///
/// # Errors
/// A server or the command cannot be started.
pub async fn run(command: &[String]) -> anyhow::Result<i32> {
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let folder = std::env::temp_dir().join(format!(
        "ostiary-test-{}-{}",
        std::process::id(),
        crate::random_hex(4)
    ));
    std::fs::create_dir(&folder)?;
    let outcome = async {
        let postgres = Postgres::start(&folder, Durability::Careless, None).await?;
        let redis = Redis::start(&folder, None, None).await?;
        let mut child = tokio::process::Command::new(&command[0])
            .args(&command[1..])
            .env("OSTIARY_TEST_DATABASE_URL", postgres.url("postgres"))
            .env("OSTIARY_TEST_REDIS_URL", redis.url())
            .spawn()
            .with_context(|| format!("{} cannot be started", command[0]))?;
        let status = tokio::select! {
            status = child.wait() => status?,
            // A terminal sends Ctrl-C to the command as well; others may not have: say it again, gently.
            _ = async { tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} } } => {
                if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                match tokio::time::timeout(Duration::from_secs(20), child.wait()).await {
                    Ok(status) => status?,
                    Err(_) => {
                        child.kill().await?;
                        child.wait().await?
                    }
                }
            }
        };
        redis.stop().await;
        postgres.stop().await;
        anyhow::Ok(status.code().unwrap_or(130))
    }
    .await;
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}
