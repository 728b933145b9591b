//! From pending rows to what their posts say: decompressed, freed of repetitions, decoded. Nothing is written here.

use std::collections::{BTreeMap, HashMap};

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
    posts: HashMap<(NodeId, u8), BTreeMap<i64, PostFingerprints>>,
    pub(crate) added: Vec<Remembered>,
}

impl Memory {
    pub(crate) fn new(remembered: Vec<Remembered>) -> Self {
        let mut posts: HashMap<_, BTreeMap<_, _>> = HashMap::new();
        for post in remembered {
            posts
                .entry((post.node_id, post.log_type))
                .or_default()
                .insert(post.batch_id, post.lines);
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
        let dedup = Dedup::against(posts.values(), &fingerprints);
        // As `post_fingerprints::remember` does it: the newest posts stay, also when an older one had to wait and comes after them.
        posts.insert(post.batch.id, fingerprints.clone());
        if posts.len() > ostiary_domain::fingerprint::REMEMBERED_POSTS {
            posts.pop_first();
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
        let log_type = LogType::of_letter(self.batch.log_type);
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

#[cfg(test)]
mod tests {
    use ostiary_domain::fingerprint::REMEMBERED_POSTS;
    use ostiary_store::log_batches::compress;
    use ostiary_store::pending::Work;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_newest_posts_are_remembered_also_when_older_ones_come_after_them() {
        let row = |id: i64, data: &str| Pending {
            id,
            node_id: NodeId(Uuid::nil()),
            received_at: DateTime::UNIX_EPOCH,
            attempts: 0,
            claims: 0,
            work: Work::Batch(Batch {
                id,
                log_type: b's',
                client_version: String::new(),
                data: compress(data.as_bytes()),
            }),
        };
        let mut memory = Memory::default();
        let mut repeated = |id: i64, data: &str| {
            let pending = row(id, data);
            let Work::Batch(batch) = &pending.work else {
                unreachable!("it was made above");
            };
            let post = OpenPost::open(&pending, batch, 1 << 20).unwrap();
            post.read(&mut memory).repeated
        };
        assert_eq!(repeated(9, r#"[{"m":"a"},{"m":"b"}]"#), 0);
        for id in 1..=i64::try_from(REMEMBERED_POSTS).unwrap() {
            assert_eq!(repeated(id, &format!(r#"[{{"m":{id}}}]"#)), 0);
        }
        assert_eq!(repeated(8, r#"[{"m":"a"}]"#), 1);
    }
}
