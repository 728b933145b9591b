//! A Postgres and a Redis of a world's own, which its test may stop, pause and start again.

use std::path::{Path, PathBuf};

use ostiary_dev::postgres::{Durability, Postgres};
use ostiary_dev::redis::Redis;
use rustix::process::{Pid, Signal, kill_process};

/// Both servers. They keep their ports, passwords and data over a restart.
#[derive(Debug)]
pub struct Servers {
    folder: PathBuf,
    postgres: Option<Postgres>,
    postgres_port: u16,
    postgres_url: String,
    redis: Option<Redis>,
    redis_place: (u16, String),
    redis_url: String,
}

impl Servers {
    /// Starts both.
    ///
    /// # Panics
    /// One of them cannot be started.
    pub async fn start(folder: &Path) -> Self {
        let postgres = Postgres::start(folder, Durability::Kept, None)
            .await
            .expect("script/bootstrap installs Postgres");
        let redis = Redis::start(folder, None, None)
            .await
            .expect("script/bootstrap installs Redis");
        Self {
            folder: folder.to_owned(),
            postgres_port: postgres.port(),
            postgres_url: postgres.url("postgres"),
            postgres: Some(postgres),
            redis_place: redis.place(),
            redis_url: redis.url(),
            redis: Some(redis),
        }
    }

    /// The URL of Postgres, for its owner.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        &self.postgres_url
    }

    /// The URL of Redis.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// Ends Postgres: its clients are cut off, and new ones are refused.
    pub async fn stop_postgres(&mut self) {
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
    }

    /// Starts Postgres again.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_postgres(&mut self) {
        let port = Some(self.postgres_port);
        let started = Postgres::start(&self.folder, Durability::Kept, port).await;
        self.postgres = Some(started.expect("it started before"));
    }

    /// Freezes Postgres with all its backends: connections stay open, new ones are accepted by the kernel, and nobody answers.
    pub fn pause_postgres(&self) {
        self.signal_postgres(Signal::STOP);
    }

    /// Lets Postgres go on.
    pub fn resume_postgres(&self) {
        self.signal_postgres(Signal::CONT);
    }

    /// Ends Redis.
    pub async fn stop_redis(&mut self) {
        if let Some(redis) = self.redis.take() {
            redis.stop().await;
        }
    }

    /// Starts Redis again.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_redis(&mut self) {
        let (port, password) = self.redis_place.clone();
        let started = Redis::start(&self.folder, Some(port), Some(password)).await;
        self.redis = Some(started.expect("it started before"));
    }

    /// Freezes Redis.
    pub fn pause_redis(&self) {
        self.redis
            .iter()
            .for_each(|redis| send(redis.pid(), Signal::STOP));
    }

    /// Lets Redis go on.
    pub fn resume_redis(&self) {
        self.redis
            .iter()
            .for_each(|redis| send(redis.pid(), Signal::CONT));
    }

    /// Restarts Postgres, as an operator would or (`crash`) as a failure does. Its clients are cut off.
    ///
    /// # Panics
    /// It does not come back.
    pub async fn restart_postgres(&mut self, crash: bool) {
        match self.postgres.take() {
            Some(postgres) if crash => postgres.crash().await,
            Some(postgres) => postgres.stop().await,
            None => {}
        }
        self.start_postgres().await;
    }

    /// Empties Redis.
    ///
    /// # Panics
    /// Redis does not obey.
    pub async fn flush_redis(&self) {
        let redis = self.redis.as_ref().expect("Redis runs");
        assert_eq!(redis.call("FLUSHALL").await.expect("Redis answers"), "+OK");
    }

    /// Ends both.
    pub async fn stop(mut self) {
        // A frozen server could not end.
        self.resume_postgres();
        self.resume_redis();
        self.stop_postgres().await;
        self.stop_redis().await;
    }

    /// The postmaster first: while it is frozen no backend is added.
    fn signal_postgres(&self, signal: Signal) {
        if let Some(postgres) = &self.postgres {
            send(postgres.pid(), signal);
            children(postgres.pid())
                .into_iter()
                .for_each(|pid| send(pid, signal));
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A backend may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}
