//! A case: what a client of some version sends, what it is answered, and what must be stored afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use ostiary_tests::{StoredExecution, StoredStatus, StoredTask, Verdict};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// Its name in the list of cases: `R1`.
    pub(super) case: String,
    /// A sentence.
    pub(super) title: String,
    /// The osquery that speaks.
    pub(super) client: String,
    /// Does its node enroll before it begins?
    #[serde(default = "yes")]
    pub(super) enrolled: bool,
    /// What an admin decided about its node before it begins, if anything.
    pub(super) decided: Option<Decided>,
    /// Settings of the programs for this case, `"API__ENROLL_SECRET_NAME": "password"`.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
    /// Live queries that its node is asked before it begins: SQL by a name.
    #[serde(default)]
    pub(super) live_queries: BTreeMap<String, String>,
    /// What is sent, in order, each on a connection of its own.
    pub(super) posts: Vec<Post>,
    /// What must be stored when the worker is done.
    pub(super) then: Then,
    /// `5.23/r1_event_added_removed`
    #[serde(skip)]
    pub(super) name: String,
}

/// What an admin decides about a node; it keeps its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decided {
    Disabled,
    /// Nothing yet, and its secret asks for an approval.
    Waiting,
    Refused,
}

/// One request, with one of three bodies. `{{…}}` in it is replaced, see [`Words`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Post {
    pub(super) endpoint: String,
    /// Written compactly, in this order of keys.
    json: Option<Value>,
    /// To the letter; pieces are joined.
    text: Option<Vec<String>>,
    /// To the byte.
    base64: Option<String>,
    /// Besides those that every request of that version has.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// Is it compressed?
    #[serde(default)]
    pub(super) gzip: Gzip,
    /// Another `User-Agent` than that of the version.
    pub(super) user_agent: Option<String>,
    /// Another `Content-Type` than JSON; none if empty.
    pub(super) content_type: Option<String>,
    /// How it is sent.
    #[serde(default)]
    pub(super) how: How,
    pub(super) answer: Expected,
    /// What a client of that version makes of the answer.
    pub(super) verdict: Verdict,
}

/// Whether and how well a body is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "GzipWord")]
pub(super) enum Gzip {
    #[default]
    No,
    Yes,
    /// The last bytes are missing.
    Truncated,
    /// A byte in the middle is another.
    Corrupt,
    /// It says so, and is not.
    Claimed,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum GzipWord {
    Flag(bool),
    Damage(Damage),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Damage {
    Truncated,
    Corrupt,
    Claimed,
}

impl From<GzipWord> for Gzip {
    fn from(word: GzipWord) -> Self {
        match word {
            GzipWord::Flag(false) => Self::No,
            GzipWord::Flag(true) => Self::Yes,
            GzipWord::Damage(Damage::Truncated) => Self::Truncated,
            GzipWord::Damage(Damage::Corrupt) => Self::Corrupt,
            GzipWord::Damage(Damage::Claimed) => Self::Claimed,
        }
    }
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    /// On a connection of its own, which the client closes without a word of TLS (`close_notify`) when it has its answer.
    #[default]
    Alone,
    /// Likewise, with that word.
    Politely,
    /// On the connection of the post before, if that is still open.
    Kept,
    /// Two at once, each on a connection of its own.
    Twice,
    /// Cut off in the middle of the body.
    Cut,
    /// The body in so many pieces, one every half second.
    Drip(u32),
    /// The server's name is given as this host's IP address.
    IpName,
}

/// What the client must be answered.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Expected {
    /// In short.
    Short(Short),
    /// To the letter.
    Exactly(Map<String, Value>),
}

/// Answers that differ from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Short {
    /// A key, and nothing that a keyed endpoint would take for a failure.
    NodeKey,
    /// No key: refused, as `/enroll` refuses.
    NoKey,
    /// A config document.
    Config,
    /// A session for a carve.
    Session,
    /// No session, whatever else.
    NoSession,
    /// An `error` in our own words.
    Error,
    /// Nothing that a carver could take for JSON.
    NotJson,
    /// Nothing at all; the connection is closed.
    Closed,
}

/// What must be stored: exactly this.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Then {
    pub(super) executions: Vec<StoredExecution>,
    pub(super) statuses: Vec<StoredStatus>,
    /// How many lines or posts are kept as unreadable.
    pub(super) unreadable: usize,
    /// The nodes of the case's host name or UUID with these fields among others; not looked at when absent.
    pub(super) nodes: Option<Vec<Map<String, Value>>>,
    /// Answers by the names of live queries.
    pub(super) tasks: BTreeMap<String, StoredTask>,
    /// How many rows there are by query, where to list them would be too long; these are not among `executions`.
    pub(super) rows: BTreeMap<String, usize>,
    /// Likewise for live queries.
    pub(super) task_rows: BTreeMap<String, usize>,
    /// By how much the api's memory may grow meanwhile, in MiB.
    pub(super) api_memory_mib: Option<usize>,
    /// What is stored of carves, by the id that the node gave it; null if there must be none.
    pub(super) carves: BTreeMap<String, Option<Map<String, Value>>>,
}

fn yes() -> bool {
    true
}

impl Case {
    /// All cases, in the order of their names.
    pub(super) fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for folder in entries(&root()) {
            if folder
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
            {
                cases.extend(entries(&folder).iter().map(|file| Self::read(file)));
            }
        }
        cases
    }

    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut case: Self = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.strip_prefix(root()).unwrap().with_extension("");
        name.to_str().unwrap().clone_into(&mut case.name);
        let stem = name.file_name().unwrap().to_str().unwrap();
        let prefix = format!("{}_", case.case.to_lowercase());
        assert!(
            stem.starts_with(&prefix),
            "{}: the name of a file of {} begins with {prefix}",
            case.name,
            case.case
        );
        case
    }

    /// The name in a form that fits host names and wire ids, unlike any part of another's.
    pub(super) fn slug(&self) -> String {
        format!(
            "{}-end",
            self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        )
    }
}

impl Post {
    pub(super) fn body(&self, words: &Words) -> Vec<u8> {
        let bytes = match (&self.json, &self.text, &self.base64) {
            (Some(json), None, None) => expand(json).to_string().into_bytes(),
            (None, Some(pieces), None) => pieces.concat().into_bytes(),
            (None, None, Some(base64)) => base64::prelude::BASE64_STANDARD.decode(base64).unwrap(),
            _ => panic!("a post has exactly one of json, text and base64"),
        };
        words.fill(&bytes)
    }
}

/// In a list `{"{{repeat 3}}": x}` stands for x three times, with `{{n}}` in its texts counting from 0.
fn expand(json: &Value) -> Value {
    match json {
        Value::Array(items) => {
            let mut expanded = Vec::with_capacity(items.len());
            for item in items {
                match repeated(item) {
                    Some((times, item)) => {
                        let text = item.to_string();
                        expanded.extend((0..times).map(|n| {
                            serde_json::from_str::<Value>(&text.replace("{{n}}", &n.to_string()))
                                .unwrap()
                        }));
                    }
                    None => expanded.push(expand(item)),
                }
            }
            Value::Array(expanded)
        }
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), expand(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn repeated(item: &Value) -> Option<(usize, &Value)> {
    let members = item.as_object().filter(|members| members.len() == 1)?;
    let (name, value) = members.iter().next()?;
    let times = name.strip_prefix("{{repeat ")?.strip_suffix("}}")?;
    Some((times.parse().unwrap(), value))
}

/// What stands for what in a case: `{{secret}}`, `{{host}}` (a host name), `{{uuid}}` (of the hardware), `{{node_key}}` (the latest),
/// `{{node_key.2}}` (the second one given out), `{{session}}` (of the latest carve) and `{{live.name}}` (the id of a live query).
/// `{{fill 1000}}` is a text of so many bytes.
#[derive(Debug, Default)]
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    pub(super) fn of(case: &Case, secret: &str) -> Self {
        let host = case.slug();
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_DNS, host.as_bytes()).to_string();
        let mut words = Self::default();
        for name in case.live_queries.keys() {
            words
                .0
                .insert(format!("live.{name}"), format!("{host}-{name}"));
        }
        words.0.insert("secret".into(), secret.into());
        words.0.insert("uuid".into(), uuid);
        words.0.insert("host".into(), host);
        words
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("{{{{{name}}}}} stands for nothing"))
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.into(), value.into());
    }

    pub(super) fn add_key(&mut self, key: &str) {
        let count = self
            .0
            .keys()
            .filter(|name| name.starts_with("node_key."))
            .count();
        self.0.insert(format!("node_key.{}", count + 1), key.into());
        self.0.insert("node_key".into(), key.into());
    }

    /// Replaces words in a text.
    pub(super) fn fill_text(&self, text: &str) -> String {
        String::from_utf8(self.fill(text.as_bytes())).unwrap()
    }

    /// Replaces words, also in bytes that are no text.
    pub(super) fn fill(&self, bytes: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(start) =
            find(rest, b"{{").filter(|start| rest[start + 2].is_ascii_lowercase())
        {
            let end = start + find(&rest[start..], b"}}").expect("what opens closes");
            filled.extend_from_slice(&rest[..start]);
            let word = std::str::from_utf8(&rest[start + 2..end]).unwrap();
            match word.strip_prefix("fill ") {
                Some(bytes) => filled.resize(filled.len() + bytes.parse::<usize>().unwrap(), b'x'),
                None => filled.extend_from_slice(self.get(word).as_bytes()),
            }
            rest = &rest[end + 2..];
        }
        filled.extend_from_slice(rest);
        filled
    }
}

fn find(bytes: &[u8], wanted: &[u8; 2]) -> Option<usize> {
    // A case may be a hundred million bytes long.
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| *byte == wanted[0])?;
        if bytes.get(from + 1) == Some(&wanted[1]) {
            return Some(from);
        }
        from += 1;
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/osquery")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}
