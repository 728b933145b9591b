//! The one error of this crate.

/// What may go wrong while Postgres is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A named constraint of the schema refused the change; callers know some by name and turn them into an answer for a person.
    #[error("the database refused the change: {constraint}")]
    Constraint {
        /// The constraint's name, as the migrations give it.
        constraint: String,
        /// The whole error.
        #[source]
        source: sqlx::Error,
    },
    /// Postgres cannot be reached, has no free connection in time, or gave up on a statement.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A partition for the day is missing: `partitions::ensure` makes it, then try again.
    #[error("no partition for this day: {0}")]
    NoPartition(#[source] sqlx::Error),
    /// What was read is not what was written: a broken value in the database.
    #[error("the database holds a value that cannot be read: {0}")]
    Corrupt(String),
    /// Anything else: a defect of ours.
    #[error("database error: {0}")]
    Other(#[source] sqlx::Error),
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Was the change refused by this constraint?
    #[must_use]
    pub fn is_constraint(&self, name: &str) -> bool {
        matches!(self, Self::Constraint { constraint, .. } if constraint == name)
    }

    /// May the same call succeed later, unchanged?
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoPartition(_))
    }
}

impl Error {
    /// Did two transactions wait for each other, so that Postgres ended this one? It has done nothing, and may be tried again at once.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01"))
    }

    /// Was a statement cancelled, as happens when it takes too long?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57014"))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                if let Some(constraint) = database.constraint() {
                    return Self::Constraint {
                        constraint: constraint.to_owned(),
                        source: error,
                    };
                }
                match database.code().as_deref() {
                    Some("23514") if database.message().contains("no partition of relation") => {
                        Self::NoPartition(error)
                    }
                    // connection exceptions, shutdown, out of resources, cancelled or deadlocked statements, read-only standby
                    Some(code)
                        if ["08", "53", "57", "40"]
                            .iter()
                            .any(|class| code.starts_with(class))
                            || code == "25006"
                            || code == "55P03" =>
                    {
                        Self::Unavailable(error)
                    }
                    _ => Self::Other(error),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Other(error),
        }
    }
}
