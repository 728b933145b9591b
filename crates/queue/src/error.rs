//! What can go wrong with the queue, and what a job's handler may answer.

use std::time::Duration;

use deadpool_redis::{PoolError, redis::RedisError};

/// The result of a call to the queue.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to Redis did not work. None of these loses anything: Postgres remembers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings of the queue cannot be used.
    #[error("queue settings: {0}")]
    Options(&'static str),
    /// Redis refused, or cannot be reached.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// Redis did not answer within the time-out.
    #[error("redis did not answer within {0:?}")]
    TimedOut(Duration),
    /// No connection could be taken from the pool, for another reason than Redis.
    #[error("redis pool: {0}")]
    Pool(String),
    /// A payload could not be written as JSON.
    #[error("job payload: {0}")]
    Payload(#[from] serde_json::Error),
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Redis(error),
            other => Self::Pool(other.to_string()),
        }
    }
}

/// Why a job was not done. It is logged and the job removed; Postgres decides whether and when it comes again.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The payload was written by another release than this one can read.
    #[error("payload of version {found} is refused, this release reads version {known}")]
    UnknownVersion {
        /// The version in the payload.
        found: u16,
        /// The version this release reads.
        known: u16,
    },
    /// The payload is not what its version promises.
    #[error("payload cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The handler could not do its work.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl JobError {
    /// Wraps whatever a handler ran into.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}
