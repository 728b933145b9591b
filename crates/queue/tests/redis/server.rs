//! A Redis of the test's own, and a worker to run against it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use apalis::{
    layers::WorkerBuilderExt,
    prelude::{Monitor, WorkerBuilder},
};
use deadpool_redis::redis::{self, Client, FromRedisValue};
use futures::future::BoxFuture;
use ostiary_queue::{Depth, Job, JobError, Options, Queue};
use secrecy::ExposeSecret;
use tokio::{sync::oneshot, task::JoinHandle};
use uuid::Uuid;

pub(crate) struct RedisServer {
    child: Child,
    dir: PathBuf,
}

impl RedisServer {
    /// Listens on a socket in a folder of its own: no port can be taken by another.
    pub(crate) async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("ostiary-queue-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let server = Self {
            child: launch(&dir),
            dir,
        };
        server.answers().await;
        server
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Comes back with what was in its append-only file.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(&self.dir);
        self.answers().await;
    }

    /// `STOP` or `CONT`: a Redis that is there but does not answer.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    pub(crate) async fn flush_all(&self) {
        self.command::<()>(&["FLUSHALL"]).await;
    }

    /// Loses one key only, as an eviction does.
    pub(crate) async fn delete(&self, key: &str) {
        assert_eq!(self.command::<u64>(&["DEL", key]).await, 1);
    }

    pub(crate) async fn keys(&self) -> u64 {
        self.command(&["DBSIZE"]).await
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            url: format!("redis+unix://{}", self.dir.join("redis.sock").display()).into(),
            prefix: "ostiary".to_owned(),
            // The most that there may be.
            timeout_ms: 1_000,
        }
    }

    pub(crate) fn queue(&self) -> Queue {
        Queue::connect(&self.options()).unwrap()
    }

    async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = Client::open(self.options().url.expose_secret()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command
            .arg(&words[1..])
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    async fn answers(&self) {
        let queue = self.queue();
        until("redis-server answers", async || queue.ping().await.is_ok()).await;
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn launch(dir: &PathBuf) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--appendonly",
            "yes",
            "--save",
            "",
        ])
        .arg("--dir")
        .arg(dir)
        .current_dir(dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("the tests need the program redis-server on the PATH; script/bootstrap installs it")
}

/// Waits until `done`, and fails the test when that takes unreasonably long.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !done().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many jobs of kind `J` wait and are worked.
pub(crate) async fn depth<J: Job>(queue: &Queue) -> (u64, u64) {
    let all = queue.depth().await.unwrap();
    let Depth {
        waiting, working, ..
    } = all
        .into_iter()
        .find(|depth| depth.queue == J::QUEUE)
        .unwrap();
    (waiting, working)
}

pub(crate) async fn until_empty<J: Job>(queue: &Queue) {
    until("the queue is empty", async || {
        let all = queue.depth().await.unwrap_or_default();
        all.iter()
            .any(|depth| depth.queue == J::QUEUE && depth.waiting + depth.working == 0)
    })
    .await;
}

pub(crate) fn delivery(number: u128) -> ostiary_queue::jobs::DeliverAlert {
    ostiary_queue::jobs::DeliverAlert {
        delivery_id: Uuid::from_u128(number),
    }
}

pub(crate) type Handler<J> =
    Arc<dyn Fn(J) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Makes a handler of an async closure.
pub(crate) fn handler<J, F>(work: impl Fn(J) -> F + Send + Sync + 'static) -> Handler<J>
where
    F: Future<Output = Result<(), JobError>> + Send + 'static,
{
    Arc::new(move |job| Box::pin(work(job)))
}

pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    monitor: JoinHandle<()>,
}

impl Running {
    /// As a worker process does it at SIGTERM.
    pub(crate) async fn stop_gracefully(self) {
        self.stop.send(()).unwrap();
        self.monitor.await.unwrap();
    }

    /// As `kill -9`: nothing is said to Redis.
    pub(crate) async fn kill(self) {
        self.monitor.abort();
        assert!(self.monitor.await.unwrap_err().is_cancelled());
    }
}

/// Short enough to be waited for, and long enough for a worker on a busy machine to renew it.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Runs a worker under a monitor, with [`LEASE`].
pub(crate) fn start_worker<J: Job>(
    queue: &Queue,
    concurrency: usize,
    handler: Handler<J>,
) -> Running {
    let queue = queue.clone();
    let (stop, stopped) = oneshot::channel();
    let monitor = Monitor::new().register(move |_| {
        let handler = handler.clone();
        WorkerBuilder::new("test")
            .backend(queue.backend::<J>(concurrency).with_lease(LEASE))
            .concurrency(concurrency)
            .build(move |job: J| handler(job))
    });
    let monitor = tokio::spawn(async move {
        let signal = async move { stopped.await.map_err(std::io::Error::other) };
        monitor.run_with_signal(signal).await.unwrap();
    });
    Running { stop, monitor }
}
