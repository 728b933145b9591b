//! What an apalis worker takes its jobs from, and the layer that answers for them.
//!
//! apalis' own `Persisted` is not used: it holds answers back while jobs are buffered, and drops a fetch that
//! is under way when the worker stops. Here a job is answered for as the last step of its own future.
//!
//! **Invariant:** the backend never fails and never ends, whatever Redis does; it pauses and tries again.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use apalis_core::{
    backend::{Backend as ApalisBackend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use futures::future::{BoxFuture, FutureExt};
use tokio::{
    task::AbortHandle,
    time::{Sleep, sleep},
};
use tower::{Layer, Service};

use crate::{Job, jobs, leases::Leases};

/// How long an idle worker waits before it looks again: the most that a bell is late.
const IDLE: Duration = Duration::from_millis(100);

/// How long a worker waits when Redis has failed.
const TROUBLE: Duration = Duration::from_millis(500);

/// The jobs of one queue, for one apalis worker.
pub struct Backend<J> {
    leases: Leases,
    concurrency: usize,
    buffer: VecDeque<Task<J>>,
    step: Step<J>,
    renewal: Option<Renewal>,
    /// Redis failed last time; said once and not twice a second.
    in_trouble: bool,
}

enum Step<J> {
    Idle,
    Fetching(BoxFuture<'static, crate::Result<VecDeque<Task<J>>>>),
    Resting(Pin<Box<Sleep>>),
    GivingBack(BoxFuture<'static, ()>),
}

/// The task that renews the leases; it must not outlive the worker, or a dead worker's jobs were never free.
struct Renewal(AbortHandle);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<J> fmt::Debug for Backend<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("queue", &self.leases.name())
            .finish_non_exhaustive()
    }
}

impl<J: Job> Backend<J> {
    pub(crate) fn new(leases: Leases, concurrency: usize) -> Self {
        Self {
            leases,
            concurrency,
            buffer: VecDeque::new(),
            step: Step::Idle,
            renewal: None,
            in_trouble: false,
        }
    }

    /// Changes how long a job stays with a worker that gives no sign of life (10 seconds).
    #[must_use]
    pub fn with_lease(mut self, length: Duration) -> Self {
        self.leases = self.leases.with_length(length);
        self
    }

    fn fetch(&self) -> BoxFuture<'static, crate::Result<VecDeque<Task<J>>>> {
        let leases = self.leases.clone();
        // No more than can be begun at once: another worker may be idle. One at least, lest nothing ever moves.
        let max = self.concurrency.saturating_sub(leases.count()).max(1);
        async move {
            let mut tasks = VecDeque::new();
            for job in leases.take(max).await? {
                match jobs::decode(&job.payload) {
                    Ok(args) => {
                        let id = TaskId::from_string(job.id);
                        tasks.push_back(TaskBuilder::new(args).task_id(id).build());
                    }
                    Err(error) => {
                        tracing::error!(job.queue = J::QUEUE, job.id, %error, "job refused");
                        leases.finish(job.id).await;
                    }
                }
            }
            Ok(tasks)
        }
        .boxed()
    }

    fn note_trouble(&mut self, trouble: Option<&crate::Error>) {
        match trouble {
            Some(error) if !self.in_trouble => {
                tracing::warn!(job.queue = J::QUEUE, %error, "Redis does not give jobs; trying on");
            }
            None if self.in_trouble => {
                tracing::info!(job.queue = J::QUEUE, "Redis gives jobs again");
            }
            _ => {}
        }
        self.in_trouble = trouble.is_some();
    }
}

impl<J: Job> ApalisBackend for Backend<J> {
    type Task = Task<J>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        let leases = &self.leases;
        self.renewal.get_or_insert_with(|| {
            Renewal(tokio::spawn(leases.clone().renew_forever()).abort_handle())
        });
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<J>, Infallible>>> {
        loop {
            if let Some(task) = self.buffer.pop_front() {
                return Poll::Ready(Some(Ok(task)));
            }
            self.step = match &mut self.step {
                Step::Idle => Step::Fetching(self.fetch()),
                Step::Fetching(fetch) => {
                    let fetched = ready!(fetch.poll_unpin(cx));
                    self.note_trouble(fetched.as_ref().err());
                    match fetched {
                        Ok(tasks) if tasks.is_empty() => Step::Resting(Box::pin(sleep(IDLE))),
                        Ok(tasks) => {
                            self.buffer = tasks;
                            Step::Idle
                        }
                        Err(_) => Step::Resting(Box::pin(sleep(TROUBLE))),
                    }
                }
                Step::Resting(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    Step::Idle
                }
                Step::GivingBack(done) => {
                    ready!(done.poll_unpin(cx));
                    Step::Idle
                }
            };
        }
    }

    /// Waits for a fetch under way, so that its jobs are known, then gives back what was not begun.
    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        loop {
            self.step = match &mut self.step {
                Step::Fetching(fetch) => {
                    self.buffer
                        .extend(ready!(fetch.poll_unpin(cx)).unwrap_or_default());
                    Step::Idle
                }
                Step::GivingBack(done) => {
                    ready!(done.poll_unpin(cx));
                    Step::Idle
                }
                Step::Idle | Step::Resting(_) if self.buffer.is_empty() => {
                    self.step = Step::Idle;
                    self.renewal = None;
                    return Poll::Ready(Ok(()));
                }
                Step::Idle | Step::Resting(_) => {
                    let ids = self
                        .buffer
                        .drain(..)
                        .filter_map(|task| id_of(&task))
                        .collect();
                    let leases = self.leases.clone();
                    Step::GivingBack(async move { leases.give_back(ids).await }.boxed())
                }
            };
        }
    }
}

impl<J: Job> BackendConfig for Backend<J> {
    type Args = J;
    type Id = String;
    /// Payloads are decoded here and not by apalis, whose decoding error would end the worker.
    type Kind = Ephemeral;
    type Config = ();
    type Layer = AnswerLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> AnswerLayer {
        AnswerLayer(self.leases.clone())
    }
}

fn id_of<J>(task: &Task<J>) -> Option<String> {
    task.task_id().map(ToString::to_string)
}

/// Ends a job's lease when its handler has ended, in whatever way.
#[derive(Debug, Clone)]
pub struct AnswerLayer(Leases);

impl<S> Layer<S> for AnswerLayer {
    type Service = Answer<S>;

    fn layer(&self, inner: S) -> Answer<S> {
        Answer {
            leases: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`AnswerLayer`].
#[derive(Debug, Clone)]
pub struct Answer<S> {
    leases: Leases,
    inner: S,
}

impl<S, J> Service<Task<J>> for Answer<S>
where
    S: Service<Task<J>>,
    S::Future: Send + 'static,
    S::Response: Send,
    S::Error: Into<BoxDynError>,
{
    type Response = S::Response;
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<S::Response, BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let leases = self.leases.clone();
        let id = id_of(&task).expect("fetch gives every task an id");
        let started = Instant::now();
        let work = self.inner.call(task);
        async move {
            let outcome = work.await.map_err(Into::into);
            if let Err(error) = &outcome {
                let duration_ms = started.elapsed().as_millis();
                tracing::error!(job.queue = leases.name(), job.id = id, duration_ms, %error, "job failed");
            }
            leases.finish(id).await;
            outcome
        }
        .boxed()
    }
}
