//! The handle: connects lazily, rings, and tells how the queues are. Does not work jobs.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use apalis::layers::{
    TimeoutLayer, WorkerBuilderExt, catch_panic::CatchPanicLayer, limit::ConcurrencyLimitLayer,
};
use apalis_core::{error::AbortError, worker::builder::WorkerBuilder};
use deadpool_redis::{
    Connection, Manager, Pool,
    redis::{self, AsyncConnectionConfig, Client, FromRedisValue, ScriptInvocation},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tower::layer::util::{Identity, Stack};

use crate::{
    Backend, Error, Job, Result, Signals, jobs,
    leases::Leases,
    scripts::{self, Keys},
    signals::Hub,
};

/// A script blocks Redis while it runs: 1,000 pushes take about a millisecond.
const PUSH_CHUNK: usize = 1_000;

/// Connections per process. A call holds one for well under a millisecond.
const POOL_SIZE: usize = 16;

/// How Redis is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `redis://[user:password@]host:port/` or `redis+unix:///path/of/socket`. Secret, since it may hold a password.
    pub url: SecretString,
    /// Begins every key and channel, so that installations can share a Redis.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// After how many milliseconds a call is given up, connecting included; 1 to 1,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_prefix() -> String {
    "ostiary".to_owned()
}

const fn default_timeout_ms() -> u64 {
    500
}

/// How many jobs a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// The queue, [`Job::QUEUE`].
    pub queue: &'static str,
    /// Jobs that wait for a worker.
    pub waiting: u64,
    /// Jobs that a worker has taken and not yet answered for.
    pub working: u64,
}

/// What [`Queue::worker`] gives: an apalis builder that lacks only data and the handler.
pub type Worker<J> = WorkerBuilder<J, Backend<J>, Limits>;

/// The layers every worker has, outermost last in the type: concurrency, time-out, caught panics.
pub type Limits = Stack<CatchPanic, Stack<TimeoutLayer, Stack<ConcurrencyLimitLayer, Identity>>>;

/// Turns a panic of a handler into an error of its job.
pub type CatchPanic = CatchPanicLayer<fn(&Box<dyn std::any::Any + Send>) -> AbortError, AbortError>;

/// The queue. Cheap to clone; connects when first used, and again whenever it must.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    client: Client,
    prefix: String,
    timeout: Duration,
    hub: Hub,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would print its URL.
        f.debug_struct("Queue")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Prepares the queue. Redis is not contacted, so a process starts without it.
    ///
    /// # Errors
    /// [`Error::Options`] or [`Error::Redis`] if the options cannot be meant.
    pub fn connect(options: &Options) -> Result<Self> {
        if !(1..=1_000).contains(&options.timeout_ms) {
            return Err(Error::Options("timeout_ms must be between 1 and 1000"));
        }
        if options.prefix.is_empty() || options.prefix.contains(['{', '}']) {
            return Err(Error::Options(
                "prefix must not be empty nor contain braces",
            ));
        }
        let timeout = Duration::from_millis(options.timeout_ms);
        let client = Client::open(options.url.expose_secret())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let manager = Manager::new_with_config(options.url.expose_secret(), config)?;
        let pool = Pool::builder(manager).max_size(POOL_SIZE).build().expect(
            "a pool without time-outs of its own needs no runtime and cannot fail to build",
        );
        let inner = Inner {
            pool,
            client,
            prefix: options.prefix.clone(),
            timeout,
            hub: Hub::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Rings for one job. `false` means that its twin is waiting already, which serves as well.
    ///
    /// # Errors
    /// If Redis does not take it in time; the sweep will ring again, so a caller may just log it.
    pub async fn ring<J: Job>(&self, job: &J) -> Result<bool> {
        Ok(self.ring_many(std::slice::from_ref(job)).await? > 0)
    }

    /// Rings for many jobs and returns how many had no twin waiting. Each thousand is one call to Redis.
    ///
    /// # Errors
    /// As [`Queue::ring`]; the jobs before the failure are rung.
    pub async fn ring_many<J: Job>(&self, jobs: &[J]) -> Result<usize> {
        let keys = self.keys(J::QUEUE);
        let mut rung = 0;
        for chunk in jobs.chunks(PUSH_CHUNK) {
            let mut push = keys.invoke(&scripts::PUSH);
            for job in chunk {
                push.arg(job.id()).arg(jobs::encode(job)?);
            }
            rung += self.call::<usize>(&push).await?;
        }
        Ok(rung)
    }

    /// Asks Redis for a sign of life and returns how long that took, connecting included.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn ping(&self) -> Result<Duration> {
        let started = Instant::now();
        self.within(async |connection| redis::cmd("PING").query_async::<()>(connection).await)
            .await?;
        Ok(started.elapsed())
    }

    /// How many jobs each queue holds, for metrics and tests.
    ///
    /// # Errors
    /// If Redis does not answer in time.
    pub async fn depth(&self) -> Result<Vec<Depth>> {
        let mut pipe = redis::pipe();
        for queue in jobs::QUEUES {
            let keys = self.keys(queue);
            pipe.cmd("LLEN")
                .arg(keys.ready())
                .cmd("ZCARD")
                .arg(keys.lease());
        }
        let counts: Vec<u64> = self
            .within(async |connection| pipe.query_async(connection).await)
            .await?;
        let pairs = counts.chunks_exact(2).zip(jobs::QUEUES);
        Ok(pairs
            .map(|(counts, queue)| Depth {
                queue,
                waiting: counts[0],
                working: counts[1],
            })
            .collect())
    }

    /// An apalis worker for one kind of job, that works `concurrency` of them at once, ends each after
    /// `timeout`, and survives their panics. It lacks only `.data(..)` and `.build(handler)`.
    ///
    /// Do not add apalis' `retry` (Postgres decides) or `parallelize` (a task of its own outlives its time-out).
    pub fn worker<J: Job>(&self, name: &str, concurrency: usize, timeout: Duration) -> Worker<J> {
        WorkerBuilder::new(name)
            .backend(self.backend::<J>(concurrency))
            .concurrency(concurrency)
            .timeout(timeout)
            .layer(CatchPanicLayer::new())
    }

    /// The bare backend behind [`Queue::worker`], for a worker with other layers.
    pub fn backend<J: Job>(&self, concurrency: usize) -> Backend<J> {
        Backend::new(Leases::new(self.clone(), J::QUEUE), concurrency)
    }

    /// The hints for live pages that go through the same Redis.
    pub fn signals(&self) -> Signals {
        Signals::new(self.clone())
    }

    pub(crate) fn keys(&self, queue: &str) -> Keys {
        Keys::new(&self.inner.prefix, queue)
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The channel of a topic of [`Signals`].
    pub(crate) fn channel(&self, topic: &str) -> String {
        format!("{{{}}}:signal:{topic}", self.inner.prefix)
    }

    /// Runs a script within the time-out.
    pub(crate) async fn call<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T> {
        self.within(async |connection| script.invoke_async(connection).await)
            .await
    }

    /// Everything that speaks to Redis goes through here: one connection of the pool, one time-out.
    pub(crate) async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&mut Connection) -> std::result::Result<T, redis::RedisError>,
    ) -> Result<T> {
        let timeout = self.inner.timeout;
        let call = async {
            let mut connection = self.inner.pool.get().await?;
            Ok(work(&mut connection).await?)
        };
        tokio::time::timeout(timeout, call)
            .await
            .unwrap_or(Err(Error::TimedOut(timeout)))
    }
}
