//! Posts that are too large come again for ever, and block everything behind them. So they are refused only a few times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::LogType;
use ostiary_domain::osquery::endpoint::Endpoint;
use sha2::{Digest as _, Sha256};

/// What osqueryd sends in order, each from a thread and a buffer of its own: a post that is refused blocks those behind it in the same
/// stream, and says nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// Posts to `/log` of one type.
    Log(LogType),
    /// Answers to live queries.
    DistributedWrite,
}

impl Stream {
    pub(crate) fn endpoint(self) -> Endpoint {
        match self {
            Self::Log(_) => Endpoint::Log,
            Self::DistributedWrite => Endpoint::DistributedWrite,
        }
    }

    /// As it is called beside unreadable data.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::DistributedWrite => "distributed/write",
        }
    }
}

type Digest = [u8; 32];

/// What was refused of late, by node and stream.
#[derive(Debug, Default)]
pub(crate) struct Oversized {
    refused: Mutex<HashMap<(NodeId, Stream), u32>>,
    /// By hash what was set aside last: it comes again when the answer is lost.
    set_aside: Mutex<HashMap<(NodeId, Stream), Digest>>,
}

impl Oversized {
    /// Counts a refusal; `true` when there were enough of them.
    pub(crate) fn enough(&self, node: NodeId, stream: Stream, refusals: u32) -> bool {
        let mut counts = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((node, stream)).or_default();
        *count = count.saturating_add(1);
        *count > refusals
    }

    /// A post of the node got through in this stream.
    pub(crate) fn forget(&self, node: NodeId, stream: Stream) {
        let mut counts = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.is_empty() {
            counts.remove(&(node, stream));
        }
    }

    /// Is this what was set aside last?
    pub(crate) fn is_set_aside(&self, node: NodeId, stream: Stream, beginning: &[u8]) -> bool {
        let digest: Digest = Sha256::digest(beginning).into();
        let set_aside = self
            .set_aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        set_aside.get(&(node, stream)) == Some(&digest)
    }

    /// The beginning of a post is kept, and the post accepted.
    pub(crate) fn note_set_aside(&self, node: NodeId, stream: Stream, beginning: &[u8]) {
        let digest = Sha256::digest(beginning).into();
        self.set_aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((node, stream), digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS: Stream = Stream::Log(LogType::Result);
    const STATUSES: Stream = Stream::Log(LogType::Status);

    #[test]
    fn a_node_is_refused_a_few_times_and_then_not_any_more() {
        let oversized = Oversized::default();
        let node = NodeId(uuid::Uuid::from_u128(1));
        assert_eq!(
            [(); 4].map(|()| oversized.enough(node, RESULTS, 3)),
            [false, false, false, true]
        );
        oversized.forget(node, RESULTS);
        assert!(!oversized.enough(node, RESULTS, 3));
    }

    #[test]
    fn what_gets_through_in_one_stream_says_nothing_of_another() {
        let oversized = Oversized::default();
        let node = NodeId(uuid::Uuid::from_u128(1));
        for stream in [STATUSES, Stream::DistributedWrite] {
            assert!(!oversized.enough(node, RESULTS, 1));
            oversized.forget(node, stream);
            assert!(oversized.enough(node, RESULTS, 1), "{stream:?}");
            oversized.forget(node, RESULTS);
        }
    }
}
