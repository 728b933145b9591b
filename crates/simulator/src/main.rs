//! `ostiary-fleet`: starts a fleet, lets it drift and misbehave as told, and ends with a verdict.
//! What nodes do lives in the library.

mod arguments;
mod progress;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use arguments::Arguments;
use clap::Parser;
use ostiary_simulator::stored::Manager;
use ostiary_simulator::{Fleet, Misbehaviour, Scope, Verdict, control};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let lasting: Vec<_> = arguments
        .misbehave
        .iter()
        .copied()
        .filter(|how| *how != Misbehaviour::Wipe)
        .collect();
    let mut builder = Fleet::builder(arguments.settings()?)
        .nodes(arguments.nodes)
        .ramp(arguments.ramp)
        .misbehave(&lasting, arguments.misbehave_share);
    if let Some(path) = &arguments.ledger {
        builder = builder.ledger_file(path.clone());
    }
    if let Some(path) = &arguments.state {
        builder = builder.state_folder(path.clone());
    }
    let fleet = builder.start().await?;
    eprintln!(
        "{} nodes start against {}",
        fleet.len(),
        arguments.tls_hostname
    );
    run(&fleet, &arguments).await?;
    finish(fleet, &arguments).await
}

/// Runs until told to end.
async fn run(fleet: &Fleet, arguments: &Arguments) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let end = async {
        match arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let commands = async {
        match &arguments.control {
            Some(path) => control::listen(fleet, path)
                .await
                .with_context(|| format!("listening at {}", path.display())),
            None => std::future::pending().await,
        }
    };
    let events = async {
        tokio::join!(drift(fleet, arguments), wipe(fleet, arguments));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = end => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        () = progress::show(fleet) => {}
        () = events => {}
        outcome = commands => outcome?,
    }
    Ok(())
}

async fn drift(fleet: &Fleet, arguments: &Arguments) {
    if arguments.drift.is_empty() {
        return;
    }
    tokio::time::sleep(arguments.drift_after).await;
    for &node in &arguments.drift_node {
        for &drift in &arguments.drift {
            match fleet.drift(node, drift) {
                Ok(()) => eprintln!("Node {node} drifts: {}", drift.word()),
                Err(error) => eprintln!("No drift: {error}"),
            }
        }
    }
}

async fn wipe(fleet: &Fleet, arguments: &Arguments) {
    let Some(nth) = arguments
        .misbehave
        .iter()
        .position(|how| *how == Misbehaviour::Wipe)
    else {
        return;
    };
    tokio::time::sleep(arguments.wipe_after).await;
    for node in fleet.chosen(nth, arguments.misbehave_share) {
        match fleet.misbehave(node, Misbehaviour::Wipe) {
            Ok(()) => eprintln!("Node {node}: osquery's database is wiped"),
            Err(error) => eprintln!("No wipe: {error}"),
        }
    }
}

/// Stops the fleet and says what became of its lines. The exit code is 1 if any is missing or doubled.
async fn finish(fleet: Fleet, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    eprintln!("{}", progress::summary(&fleet));
    let sent = fleet.totals().lines_sent;
    let ledger = fleet.ledger().clone();
    fleet.stop().await;
    let lines = ledger.lines();
    let (Some(url), Some(token)) = (&arguments.manager_url, &arguments.api_token) else {
        println!(
            "sent {sent} · deleted {} · storage was not compared (give --manager-url and --api-token)",
            lines.len()
        );
        return Ok(ExitCode::SUCCESS);
    };
    let manager = Manager::new(url, token)?;
    let scope = Scope {
        snapshots: arguments.snapshots,
        status_lines: false,
    };
    let deadline = Instant::now() + arguments.settle;
    loop {
        let verdict = Verdict::compare(sent, &lines, manager.stored_lines().await?, scope);
        // What is not there yet may only wait for a worker.
        if verdict.missing.is_empty() || Instant::now() >= deadline {
            println!("{verdict}");
            return Ok(if verdict.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
