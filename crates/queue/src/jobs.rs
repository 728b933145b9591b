//! The payloads: what a job is about. Each holds ids only, and is written with a version around it.
//!
//! No names, rows, addresses or secrets belong here: the worker reads them from Postgres.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{JobError, Result};

/// Work that can be rung for.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + Unpin + 'static {
    /// The queue it waits in; part of the Redis keys, so it must never change its meaning.
    const QUEUE: &'static str;
    /// The version of the payload; raised with every change that an older release would misread.
    const VERSION: u16;

    /// Names the thing that the job is about. Jobs of one queue with equal ids are one job.
    fn id(&self) -> String;
}

/// All queues, for metrics.
pub const QUEUES: &[&str] = &[
    BatchesStored::QUEUE,
    DeliverAlert::QUEUE,
    CarveReceived::QUEUE,
];

/// There is pending work in Postgres. Rung after a group commit, and by the sweep.
///
/// It does not say which work, so that a burst of commits is one bell and not a backlog of them. The shard
/// only lets as many looks go on at the same time as there are shards; a handler may claim any pending row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchesStored {
    /// Which of the bells was rung, from 0 up to [`BatchesStored::SHARDS`], exclusive.
    pub shard: u16,
}

impl BatchesStored {
    /// How many bells there are, that is, how many looks can go on at once over all workers.
    pub const SHARDS: u16 = 8;

    /// The bell for a group commit, given the id of any one of its pending rows.
    pub fn for_pending(id: i64) -> Self {
        let shard = id.rem_euclid(i64::from(Self::SHARDS));
        Self {
            shard: u16::try_from(shard).expect("the remainder is below SHARDS, a u16"),
        }
    }
}

impl Job for BatchesStored {
    const QUEUE: &'static str = "batches_stored";
    const VERSION: u16 = 1;

    fn id(&self) -> String {
        self.shard.to_string()
    }
}

/// A delivery is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverAlert {
    /// The delivery to be attempted.
    pub delivery_id: Uuid,
}

impl Job for DeliverAlert {
    const QUEUE: &'static str = "deliver_alert";
    const VERSION: u16 = 1;

    fn id(&self) -> String {
        self.delivery_id.to_string()
    }
}

/// Every block of a carve is there: it is to be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarveReceived {
    /// The carve.
    pub carve_id: Uuid,
}

impl Job for CarveReceived {
    const QUEUE: &'static str = "carve_received";
    const VERSION: u16 = 1;

    fn id(&self) -> String {
        self.carve_id.to_string()
    }
}

#[derive(Serialize)]
struct Written<'a, J> {
    version: u16,
    job: &'a J,
}

/// The job stays raw until its version is known to be ours.
#[derive(Deserialize)]
struct Read<'a> {
    version: u16,
    #[serde(borrow)]
    job: &'a RawValue,
}

pub(crate) fn encode<J: Job>(job: &J) -> Result<Vec<u8>> {
    let version = J::VERSION;
    Ok(serde_json::to_vec(&Written { version, job })?)
}

pub(crate) fn decode<J: Job>(payload: &[u8]) -> std::result::Result<J, JobError> {
    let read: Read<'_> = serde_json::from_slice(payload)?;
    if read.version != J::VERSION {
        return Err(JobError::UnknownVersion {
            found: read.version,
            known: J::VERSION,
        });
    }
    Ok(serde_json::from_str(read.job.get())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_as_it_was_written() {
        let job = DeliverAlert {
            delivery_id: Uuid::from_u128(7),
        };
        let payload = encode(&job).expect("ids are JSON");
        assert_eq!(
            String::from_utf8_lossy(&payload),
            r#"{"version":1,"job":{"delivery_id":"00000000-0000-0000-0000-000000000007"}}"#
        );
        assert_eq!(
            decode::<DeliverAlert>(&payload).expect("our own version"),
            job
        );
    }

    #[test]
    fn a_payload_of_an_unknown_version_is_refused_whatever_it_holds() {
        let error =
            decode::<DeliverAlert>(br#"{"version":9,"job":[1,2]}"#).expect_err("not our version");
        assert_eq!(
            error.to_string(),
            "payload of version 9 is refused, this release reads version 1"
        );
        for odd in [
            &b""[..],
            b"{}",
            b"[]",
            b"\xff",
            br#"{"version":1,"job":{}}"#,
        ] {
            assert!(matches!(
                decode::<DeliverAlert>(odd),
                Err(JobError::Unreadable(_))
            ));
        }
    }

    #[test]
    fn every_pending_id_has_a_bell_below_the_limit() {
        for id in [i64::MIN, -1, 0, 7, 8, i64::MAX] {
            assert!(BatchesStored::for_pending(id).shard < BatchesStored::SHARDS);
        }
        assert_ne!(BatchesStored::for_pending(1), BatchesStored::for_pending(2));
    }
}
