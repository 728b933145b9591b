//! The long form of the soak: `script/soak`. Needs only the programs; it starts servers of its own.

use std::io::IsTerminal as _;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use futures::FutureExt as _;
use ostiary_tests::World;
use ostiary_tests::soak::{Outcome, Plan};
use tokio::signal::unix::{SignalKind, signal};

/// Kills and restarts Ostiary and its servers under a reporting fleet, and says whether anything was lost, doubled or not told.
#[derive(Debug, Parser)]
#[command(name = "script/soak")]
struct Arguments {
    /// Troubles, one after the other.
    #[arg(default_value_t = 100)]
    rounds: usize,
    /// Nodes of the fleet.
    #[arg(default_value_t = 50, value_parser = clap::value_parser!(u32).range(4..=2000))]
    nodes: u32,
    /// Lets some nodes misbehave: poison bytes, double posts, wrong clocks, cloned identities, wiped databases.
    #[arg(long)]
    misbehave: bool,
    /// Kills the worker only, at another moment each time between a drift and its mail; rounds are kills.
    #[arg(long, conflicts_with = "misbehave")]
    kills_only: bool,
    /// Keeps the folder with databases, logs and mails.
    #[arg(long)]
    keep: bool,
}

enum End {
    Judged(Outcome),
    Panicked,
    Interrupted,
}

// One thread: the processes of the world end with the thread that started them.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = Plan {
        rounds: arguments.rounds,
        nodes: usize::try_from(arguments.nodes).expect("this machine counts to 2^32"),
        misbehave: arguments.misbehave,
        kills_only: arguments.kills_only,
    };
    let begun = Instant::now();
    let mut world = World::start(plan.world()).await;
    println!("In {}", world.folder().display());
    let end = soak(&plan, &mut world, begun).await;
    let is_clean = matches!(&end, End::Judged(outcome) if outcome.faults.is_empty());
    match &end {
        End::Judged(outcome) => println!("\n{outcome} after {} s", begun.elapsed().as_secs()),
        End::Panicked => println!("\nNOT CLEAN: it did not come to a verdict"),
        End::Interrupted => println!("\nInterrupted: no verdict"),
    }
    if arguments.keep || !(is_clean || matches!(end, End::Interrupted)) {
        println!("Kept for a look: {}", world.folder().display());
        // Processes and servers end with us.
        return if is_clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    world.end().await;
    match end {
        End::Judged(_) => ExitCode::SUCCESS,
        End::Interrupted | End::Panicked => ExitCode::from(130),
    }
}

async fn soak(plan: &Plan, world: &mut World, begun: Instant) -> End {
    let is_terminal = std::io::stdout().is_terminal();
    let mut say = |line: &str| {
        let seconds = begun.elapsed().as_secs();
        // On a terminal the line of a round replaces the one before.
        if is_terminal && line.starts_with("round ") {
            print!("\r\x1b[K[{seconds:>5} s] {line}");
            let _ = std::io::Write::flush(&mut std::io::stdout());
        } else {
            println!(
                "{}[{seconds:>5} s] {line}",
                if is_terminal { "\r\x1b[K" } else { "" }
            );
        }
    };
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return End::Panicked;
    };
    tokio::select! {
        end = AssertUnwindSafe(plan.run(world, &mut say)).catch_unwind() => end.map_or(End::Panicked, End::Judged),
        _ = interrupt.recv() => End::Interrupted,
        _ = terminate.recv() => End::Interrupted,
        _ = hangup.recv() => End::Interrupted,
    }
}
