//! Our own processes: started, started again when they end, stopped in reverse order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::process::{Process, Recipe};

/// A process that ends sooner than this after its start waits before it is started again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Supervisor {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    recipe: Recipe,
    process: Option<Process>,
    started_at: Instant,
    quick_ends: u32,
}

impl Supervisor {
    pub(super) fn start(&mut self, recipe: Recipe) -> anyhow::Result<()> {
        let process = Some(recipe.start()?);
        self.members.push(Member {
            recipe,
            process,
            started_at: Instant::now(),
            quick_ends: 0,
        });
        Ok(())
    }

    /// The process ids by name.
    pub(super) fn pids(&self) -> BTreeMap<String, u32> {
        let running = self
            .members
            .iter()
            .filter_map(|member| member.process.as_ref());
        running
            .map(|process| (process.name.clone(), process.pid))
            .collect()
    }

    /// Is a process not running?
    pub(super) fn is_dead(&mut self, name: &str) -> bool {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.recipe.name == name);
        let process = member.and_then(|member| member.process.as_mut());
        process.is_none_or(|process| !matches!(process.ended(), Ok(None)))
    }

    /// The end of a process' log.
    pub(super) fn last_words(&self, name: &str) -> String {
        let member = self
            .members
            .iter()
            .find(|member| member.recipe.name == name);
        member
            .and_then(|member| member.process.as_ref())
            .map(Process::last_words)
            .unwrap_or_default()
    }

    /// Starts again what has ended; true if anything changed.
    pub(super) fn revive(&mut self) -> bool {
        let mut changed = false;
        for member in &mut self.members {
            changed |= member.revive();
        }
        changed
    }

    pub(super) async fn stop(self) {
        for member in self.members.into_iter().rev() {
            if let Some(process) = member.process {
                process.stop(Signal::TERM, Duration::from_secs(15)).await;
            }
        }
    }
}

impl Member {
    fn revive(&mut self) -> bool {
        let mut changed = false;
        if let Some(process) = &mut self.process
            && let Ok(Some(status)) = process.ended()
        {
            println!("{} ended ({status}); starting it again", self.recipe.name);
            self.quick_ends = if self.started_at.elapsed() < STABLE_AFTER {
                self.quick_ends + 1
            } else {
                0
            };
            self.process = None;
            changed = true;
        }
        let pause = Duration::from_millis(500) * 2_u32.pow(self.quick_ends.min(6));
        let due = self.quick_ends == 0 || self.started_at.elapsed() > pause;
        if self.process.is_none() && due {
            match self.recipe.start() {
                Ok(process) => self.process = Some(process),
                Err(error) => println!("{error:#}"),
            }
            self.started_at = Instant::now();
            changed = true;
        }
        changed
    }
}

/// The signals that stop us.
#[derive(Debug)]
pub(super) struct Stop {
    signals: [Stream; 3],
}

impl Stop {
    pub(super) fn new() -> anyhow::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self {
            signals: [interrupt?, terminate?, hangup?],
        })
    }

    pub(super) async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
