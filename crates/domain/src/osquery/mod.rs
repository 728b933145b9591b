//! What osqueryd says and what it wants to hear, verbatim: the JSON of its TLS endpoints and of its pack files.
//!
//! This module knows nothing else of the domain. It is lenient towards what nodes send (every version since 1.x, see
//! the tests, which carry the case names E…, C…, R…, S…, W… of our compatibility corpus) and strict in what it writes.
//! What the lines of a log *mean* is decided in [`crate::log`], not here.

pub mod aliases;
mod answer;
mod carve;
mod columns;
mod config;
mod distributed;
pub mod endpoint;
mod enroll;
mod json;
mod log;
mod log_reader;
pub mod pack_file;
mod sanitise;
mod version;

pub use answer::{Accepted, EnrollAccepted, EnrollRefused, NodeInvalid, Refused};
pub use carve::{BlockStored, CarveBlock, CarveRequestError, CarveStart, CarveStarted};
pub use columns::Columns;
pub use config::ConfigRequest;
pub use distributed::{
    DistributedReadRequest, DistributedReadResponse, DistributedWrite, QueryResult, QueryStats,
    ResultRows,
};
pub use enroll::{DEFAULT_SECRET_KEY, EnrollRequest};
pub use json::RequestError;
pub(crate) use json::{Text, integer_of, object_members, text_of, unsigned_of};
pub use log::{LogEnvelope, LogType};
pub use log_reader::{Data, Lines, LogHead, LogReader};
pub use sanitise::{Sanitised, sanitise};
pub use version::{OsqueryVersion, VersionError};
