//! Telling lines that a node sends again from lines that are alike.
//!
//! A node flushes each log type from one thread, in order, and deletes lines only after a success it could read. So a
//! line that we stored can come again only when the answer was lost: in the next posts of that (node, log type), or in a
//! silent re-POST that races the first. The repeated post is recomputed and usually contains the earlier one, or is
//! contained in it when results crowd out statuses. So a post is compared, as a multiset of fingerprints of raw lines,
//! with the last few posts of the same (node, log type): when the overlap with one of them is at least **half of the
//! smaller post** ([`Dedup::against`]), the overlap is dropped and the rest is kept. A post is remembered whole, with
//! the lines that were dropped from it, because the next repetition contains those too.
//!
//! Equal lines *inside* one post are legitimate (the rows of osquery are multisets): a line is dropped at most as often
//! as the remembered post holds it.
//!
//! # The residue
//! One-line posts are no exception: a line equal to the byte, its `unixTime` and counter included, is a repetition. For
//! *results* a later execution carries another time or counter, so two equal lines belong to one execution: they are
//! either a repetition, or equal rows of one set whose lines were cut into two posts (osqueryd takes 1,024 lines at a
//! time). If at least half of such a continuation equals lines of the post before, the equal ones are dropped. For
//! *statuses*, a message repeated within one second, once before and once after a flush, is dropped when it is half of
//! the smaller post. Either way only the *number* of equal lines is wrong: of every distinct line at least one is stored.
//!
//! The other way round, lines come twice when a repeated post shares less than half with the posts remembered: after a
//! burst of thousands of lines in one second, which osqueryd orders as text (`_10` before `_9`), or when its buffer
//! limit purged most of what we had stored; or when more than [`REMEMBERED_POSTS`] other posts lie between.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

/// How many posts of a (node, log type) are worth remembering: repetitions come next, a race or a burst some posts later.
pub const REMEMBERED_POSTS: usize = 4;

/// First byte of the stored form, so that another hash can come without reading old fingerprints as its own.
const FORMAT: u8 = 1;
const FINGERPRINT_LEN: usize = size_of::<u64>();

/// The fingerprints of the lines of one post, in their order: 8 bytes a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostFingerprints(Vec<u64>);

/// The stored fingerprints are of another format, or cut off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the fingerprints of a post")]
pub struct FingerprintsError;

impl PostFingerprints {
    /// Takes the fingerprints of the raw lines of a post, all of them, before any is dropped.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            lines
                .into_iter()
                .map(|line| xxh3_64(line.as_bytes()))
                .collect(),
        )
    }

    /// How many lines the post had.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the post had no lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form to store: one byte, and 8 bytes a line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + FINGERPRINT_LEN * self.0.len());
        bytes.push(FORMAT);
        bytes.extend(
            self.0
                .iter()
                .flat_map(|fingerprint| fingerprint.to_le_bytes()),
        );
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// The bytes are of another format, or cut off. The post may be treated as forgotten.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FingerprintsError> {
        let (&FORMAT, rest) = bytes.split_first().ok_or(FingerprintsError)? else {
            return Err(FingerprintsError);
        };
        let (fingerprints, []) = rest.as_chunks::<FINGERPRINT_LEN>() else {
            return Err(FingerprintsError);
        };
        Ok(Self(
            fingerprints
                .iter()
                .map(|bytes| u64::from_le_bytes(*bytes))
                .collect(),
        ))
    }

    fn counts(&self) -> HashMap<u64, usize> {
        let mut counts = HashMap::with_capacity(self.0.len());
        for fingerprint in &self.0 {
            *counts.entry(*fingerprint).or_default() += 1;
        }
        counts
    }
}

/// Which lines of a post are repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedup {
    repeated: Vec<bool>,
}

impl Dedup {
    /// Compares a post with the remembered ones of the same (node, log type); their order does not matter.
    #[must_use]
    pub fn against<'a>(
        previous: impl IntoIterator<Item = &'a PostFingerprints>,
        post: &PostFingerprints,
    ) -> Self {
        let counts = post.counts();
        let mut to_drop: HashMap<u64, usize> = HashMap::new();
        for earlier in previous {
            let mut shared = HashMap::new();
            for fingerprint in &earlier.0 {
                if let Some(count) = counts.get(fingerprint) {
                    let common = shared.entry(*fingerprint).or_insert(0);
                    *common = (*common + 1).min(*count);
                }
            }
            let overlap: usize = shared.values().sum();
            if overlap > 0 && 2 * overlap >= earlier.len().min(post.len()) {
                // Remembered posts repeat each other, so what they share with this one must not be added up.
                for (fingerprint, common) in shared {
                    let drops = to_drop.entry(fingerprint).or_default();
                    *drops = common.max(*drops);
                }
            }
        }
        let mut drop_one = |fingerprint: &u64| match to_drop.get_mut(fingerprint) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        Self {
            repeated: post.0.iter().map(&mut drop_one).collect(),
        }
    }

    /// Whether the line at this place of the post was seen before.
    ///
    /// # Panics
    /// When the post has no such line.
    #[must_use]
    pub fn is_repeated(&self, line: usize) -> bool {
        self.repeated[line]
    }

    /// How many lines were seen before.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated.iter().filter(|repeated| **repeated).count()
    }

    /// Keeps what was not seen before of the post's lines, which come in their order.
    pub fn keep_new<T>(&self, lines: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        lines
            .into_iter()
            .zip(&self.repeated)
            .filter(|(_, repeated)| !**repeated)
            .map(|(line, _)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn post(lines: &str) -> PostFingerprints {
        PostFingerprints::of(lines.split_whitespace())
    }

    /// What is kept of a post after these earlier ones.
    fn kept(previous: &[&str], now: &str) -> String {
        let previous: Vec<PostFingerprints> = previous.iter().map(|lines| post(lines)).collect();
        let dedup = Dedup::against(&previous, &post(now));
        dedup
            .keep_new(now.split_whitespace())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_repeated_post_is_dropped_and_what_it_brings_besides_is_kept() {
        assert_eq!(kept(&[], "a b c"), "a b c");
        assert_eq!(kept(&["a b c"], "a b c"), "");
        assert_eq!(kept(&["a b c"], "a b c d e"), "d e", "R20");
        assert_eq!(
            kept(&["a b c d e"], "b c"),
            "",
            "statuses crowded out by results"
        );
        assert_eq!(kept(&["a b c d"], "x a b c"), "x", "cut at the line limit");
    }

    #[test]
    fn a_real_osqueryd_grew_its_refused_post_from_5_to_8_to_11_lines() {
        let lines = "a b c d e f g h i j k";
        assert_eq!(kept(&["a b c d e"], "a b c d e f g h"), "f g h");
        assert_eq!(kept(&["a b c d e", "a b c d e f g h"], lines), "i j k");
    }

    #[test]
    fn r19_equal_lines_inside_a_post_stay_and_are_dropped_as_often_as_they_were_seen() {
        assert_eq!(kept(&[], "a a"), "a a");
        assert_eq!(kept(&["a a b"], "a a b"), "");
        assert_eq!(kept(&["a b"], "a a b"), "a");
        assert_eq!(
            kept(&["a b", "a b c"], "a a b c"),
            "a",
            "two memories of one line are one line"
        );
    }

    #[test]
    fn a_post_of_one_line_is_a_repetition_only_of_the_same_line() {
        assert_eq!(kept(&["a"], "a"), "");
        assert_eq!(kept(&["a"], "b"), "b");
        assert_eq!(kept(&["a"], "b c a"), "b c");
    }

    #[test]
    fn a_small_overlap_is_no_repetition() {
        assert_eq!(kept(&["a b c d"], "a x y z"), "a x y z");
        assert_eq!(kept(&["a b c d"], "a b y z"), "y z", "half is enough");
    }

    #[test]
    fn what_is_stored_is_read_back_and_nothing_else_is() {
        let fingerprints = post("a b a");
        let bytes = fingerprints.to_bytes();
        assert_eq!(bytes.len(), 1 + 3 * 8);
        assert_eq!(PostFingerprints::from_bytes(&bytes), Ok(fingerprints));
        for odd in [&bytes[..9 + 3], &[][..], &[9][..], &[FORMAT, 1][..]] {
            assert_eq!(PostFingerprints::from_bytes(odd), Err(FingerprintsError));
        }
    }

    proptest! {
        /// A node whose answers get lost at random: it keeps its lines and sends them again with what came since.
        #[test]
        fn lost_answers_never_lose_nor_double_a_line(
            rounds in proptest::collection::vec((0usize..6, any::<bool>()), 1..30),
        ) {
            let (mut buffer, mut remembered, mut stored) = (Vec::new(), Vec::new(), Vec::new());
            let mut made = 0usize;
            for (new_lines, answer_lost) in rounds {
                buffer.extend((made..made + new_lines).map(|n| n.to_string()));
                made += new_lines;
                let post = PostFingerprints::of(buffer.iter().map(String::as_str));
                let dedup = Dedup::against(&remembered, &post);
                stored.extend(dedup.keep_new(buffer.iter().cloned()));
                remembered.insert(0, post);
                remembered.truncate(REMEMBERED_POSTS);
                if !answer_lost {
                    buffer.clear();
                }
            }
            let all: Vec<String> = (0..made).map(|n| n.to_string()).collect();
            prop_assert_eq!(stored, all);
        }

        #[test]
        fn of_every_distinct_line_at_least_one_is_stored(
            posts in proptest::collection::vec(proptest::collection::vec(0u8..8, 0..8), 1..10),
        ) {
            let (mut remembered, mut stored) = (Vec::new(), std::collections::BTreeSet::new());
            for lines in &posts {
                let post = PostFingerprints::of(lines.iter().map(|line| &"abcdefgh"[usize::from(*line)..]));
                stored.extend(Dedup::against(&remembered, &post).keep_new(lines.iter().copied()));
                remembered.push(post);
            }
            let sent = posts.into_iter().flatten().collect();
            prop_assert_eq!(stored, sent);
        }
    }
}
