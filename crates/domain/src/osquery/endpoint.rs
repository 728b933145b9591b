//! What osqueryd asks for, and by which paths Ostiary answers by itself. Those of other managers are in [`super::aliases`].

use std::fmt;

use serde::Deserialize;

/// What osqueryd may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `--enroll_tls_endpoint`
    Enroll,
    /// `--config_tls_endpoint`
    Config,
    /// `--logger_tls_endpoint`
    Log,
    /// `--distributed_tls_read_endpoint`
    DistributedRead,
    /// `--distributed_tls_write_endpoint`
    DistributedWrite,
    /// `--carver_start_endpoint`
    CarveStart,
    /// `--carver_continue_endpoint`
    CarveContinue,
}

/// Our own paths; each is answered under `/v1`, too.
pub const PATHS: [(&str, Endpoint); 7] = [
    ("/enroll", Endpoint::Enroll),
    ("/config", Endpoint::Config),
    ("/log", Endpoint::Log),
    ("/distributed/read", Endpoint::DistributedRead),
    ("/distributed/write", Endpoint::DistributedWrite),
    ("/carve/start", Endpoint::CarveStart),
    ("/carve/continue", Endpoint::CarveContinue),
];

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Endpoint {
    /// The word for it in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Config => "config",
            Self::Log => "log",
            Self::DistributedRead => "distributed_read",
            Self::DistributedWrite => "distributed_write",
            Self::CarveStart => "carve_start",
            Self::CarveContinue => "carve_continue",
        }
    }
}
