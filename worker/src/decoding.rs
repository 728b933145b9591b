//! From pending rows to what their posts say: decompressed, freed of repetitions, decoded. Nothing is written here.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::fingerprint::{Dedup, PostFingerprints};
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{DecodedPost, Receipt, decode, split_lines};
use ostiary_domain::osquery::{LogType, OsqueryVersion, sanitise};
use ostiary_store::pending::{Batch, Pending};
use ostiary_store::post_fingerprints::Remembered;

/// A post whose data was opened.
#[derive(Debug)]
pub(crate) struct OpenPost<'p> {
    pub(crate) pending: &'p Pending,
    pub(crate) batch: &'p Batch,
    /// The JSON of `data`, fit for a strict parser.
    pub(crate) text: String,
}

/// What a post says that no remembered post has said.
#[derive(Debug)]
pub(crate) struct ReadPost<'p> {
    pub(crate) node_id: NodeId,
    pub(crate) batch_id: i64,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) log_type: LogType,
    pub(crate) version: Option<OsqueryVersion>,
    /// Lines that came again.
    pub(crate) repeated: usize,
    pub(crate) decoded: DecodedPost<'p>,
}

/// The lines that each node posted lately, by log type, and those that this group adds.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    posts: HashMap<(NodeId, u8), Vec<PostFingerprints>>,
    pub(crate) added: Vec<Remembered>,
}

impl Memory {
    pub(crate) fn new(remembered: Vec<Remembered>) -> Self {
        let mut posts: HashMap<_, Vec<_>> = HashMap::new();
        for post in remembered {
            posts
                .entry((post.node_id, post.log_type))
                .or_default()
                .push(post.lines);
        }
        Self {
            posts,
            added: Vec::new(),
        }
    }

    /// Compares a post with those remembered, then remembers it.
    fn recognise(&mut self, post: &OpenPost<'_>, lines: &[&str]) -> Dedup {
        let fingerprints = PostFingerprints::of(lines.iter().copied());
        let posts = self
            .posts
            .entry((post.pending.node_id, post.batch.log_type))
            .or_default();
        let dedup = Dedup::against(posts, &fingerprints);
        posts.push(fingerprints.clone());
        if posts.len() > ostiary_domain::fingerprint::REMEMBERED_POSTS {
            posts.remove(0);
        }
        self.added.push(Remembered {
            node_id: post.pending.node_id,
            log_type: post.batch.log_type,
            batch_id: post.batch.id,
            received_at: post.pending.received_at,
            lines: fingerprints,
        });
        dedup
    }
}

impl<'p> OpenPost<'p> {
    /// Decompresses a post.
    pub(crate) fn open(
        pending: &'p Pending,
        batch: &'p Batch,
        max_bytes: u64,
    ) -> Result<Self, String> {
        let bytes = batch.open(max_bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            pending,
            batch,
            text: sanitise(&bytes).text.into_owned(),
        })
    }

    /// Reads it. Its lines are remembered, whether they could be understood or not.
    pub(crate) fn read(&self, memory: &mut Memory) -> ReadPost<'_> {
        let log_type = match self.batch.log_type {
            b'r' => LogType::Result,
            b's' => LogType::Status,
            _ => LogType::Unknown,
        };
        let lines = split_lines(&self.text);
        let version = self.batch.client_version.parse().ok();
        let receipt = Receipt {
            received_at: self.pending.received_at,
            version,
            unescape: true,
        };
        let dedup = memory.recognise(self, &lines);
        ReadPost {
            node_id: self.pending.node_id,
            batch_id: self.batch.id,
            received_at: self.pending.received_at,
            log_type,
            version,
            repeated: dedup.repeated(),
            decoded: decode(log_type, dedup.keep_new(lines), &receipt),
        }
    }
}

/// The wire's name of a log type.
pub(crate) fn log_type_name(log_type: LogType) -> &'static str {
    match log_type {
        LogType::Result => "result",
        LogType::Status => "status",
        LogType::Unknown => "unknown",
    }
}
