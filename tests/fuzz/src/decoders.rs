//! The decoders of what nodes send and people upload. A function returns when all is well and panics when a promise is broken.

use std::io::Write as _;

use chrono::DateTime;
use ostiary_archives::{MAX_FILES, list};
use ostiary_domain::carve::{ArchiveFormat, Shape, entry_path, shown_path};
use ostiary_domain::fingerprint::PostFingerprints;
use ostiary_domain::log::{Receipt, decode, split_lines};
use ostiary_domain::node_config::{section, section_check};
use ostiary_domain::node_key_file::KeyFile;
use ostiary_domain::osquery::{
    CarveBlock, CarveStart, ConfigRequest, DEFAULT_SECRET_KEY, DistributedReadRequest,
    DistributedWrite, EnrollRequest, Lines, LogEnvelope, LogReader, LogType, OsqueryVersion,
    pack_file, sanitise,
};
use ostiary_domain::rule;
use ostiary_domain::tag::is_name;
use ostiary_domain::target::Target;
use serde_json::Value;

#[path = "sql_decoders.rs"]
mod sql_decoders;

/// A decoder, by its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them.
pub const DECODERS: &[Decoder] = &[
    ("log_body", log_body),
    ("gzip_log_body", gzip_log_body),
    ("result_lines", result_lines),
    ("status_lines", status_lines),
    ("sanitise", sanitised),
    ("enroll", enroll),
    ("small_requests", small_requests),
    ("distributed_write", distributed_write),
    ("carve_start", carve_start),
    ("carve_block", carve_block),
    ("carve_path", carve_path),
    ("carve_listing", carve_listing),
    ("pack_file", packs),
    ("pack_yaml", pack_yaml),
    ("node_keys", node_keys),
    ("config_sections", config_sections),
    ("rule_json", rule_json),
    ("target", target),
    ("version", version),
    ("fingerprints", fingerprints),
    ("sql_check", sql_decoders::sql_check),
    ("sql_extras", sql_decoders::sql_extras),
];

/// The one of this name.
#[must_use]
pub fn find(name: &str) -> Option<fn(&[u8])> {
    DECODERS
        .iter()
        .find(|(each, _)| *each == name)
        .map(|(_, decoder)| *decoder)
}

/// Lines in memory.
#[derive(Debug, Default)]
struct Kept {
    lines: Vec<Vec<u8>>,
    bytes: usize,
}

impl Lines for Kept {
    fn line(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.lines.push(bytes.to_vec());
    }
    fn again(&mut self) {
        self.lines.clear();
    }
}

/// The envelope of a post: however it is cut into pieces, and as the strict parser has it where that has anything.
fn log_body(bytes: &[u8]) {
    let read = |size: usize| {
        let (mut reader, mut kept) = (LogReader::new(usize::MAX), Kept::default());
        for piece in bytes.chunks(size) {
            reader.push(piece, &mut kept);
        }
        (reader.finish(Some("header")).ok(), kept)
    };
    let (head, kept) = read(usize::MAX);
    for size in [1, 3, 64] {
        let (other_head, other) = read(size);
        assert_eq!(head, other_head);
        assert_eq!(kept.lines, other.lines);
    }
    assert!(kept.bytes <= bytes.len());
    let text = sanitise(bytes).text;
    let Ok(strict) = LogEnvelope::split(&text, Some("header")) else {
        return;
    };
    let head = head.expect("what a strict parser reads is read");
    assert_eq!(head.node_key, strict.node_key);
    assert_eq!(head.log_type, strict.log_type);
    assert_eq!(head.data.is_some(), strict.data.is_some());
    let lines: Vec<String> = kept
        .lines
        .iter()
        .map(|line| sanitise(line).text.into_owned())
        .collect();
    assert_eq!(lines, split_lines(strict.data.unwrap_or_default()));
    assert_eq!(head.lines, lines.len() as u64);
}

/// The same, compressed; and bytes that are no gzip.
fn gzip_log_body(bytes: &[u8]) {
    struct Sink(LogReader, Kept, usize);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.2 += bytes.len();
            if self.2 > 1 << 20 {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            self.0.push(bytes, &mut self.1);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sink = || Sink(LogReader::new(1 << 20), Kept::default(), 0);
    let mut inflate = flate2::write::GzDecoder::new(sink());
    for piece in bytes.chunks(7) {
        if inflate.write_all(piece).is_err() {
            break;
        }
    }
    let _ = inflate.try_finish();
    let mut deflate = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(bytes).expect("memory takes everything");
    let zipped = deflate.finish().expect("memory takes everything");
    let mut inflate = flate2::write::GzDecoder::new(sink());
    for piece in zipped.chunks(64) {
        inflate.write_all(piece).expect("it is gzip");
    }
    inflate.try_finish().expect("it is whole");
    assert_eq!(inflate.get_ref().2, bytes.len());
}

fn result_lines(bytes: &[u8]) {
    lines(LogType::Result, bytes);
}

fn status_lines(bytes: &[u8]) {
    lines(LogType::Status, bytes);
}

/// The first byte chooses who sends them.
fn lines(log_type: LogType, bytes: &[u8]) {
    let Some((who, bytes)) = bytes.split_first() else {
        return;
    };
    let versions = [
        None,
        Some("3.1.0"),
        Some("5.9.1"),
        Some("5.21.0"),
        Some("5.23.1"),
    ];
    let version = versions[usize::from(*who) % versions.len()];
    let text = sanitise(bytes).text;
    let lines = split_lines(&text);
    let receipt = Receipt {
        received_at: DateTime::from_timestamp(1_786_096_805, 0).expect("a time"),
        version: version.and_then(|version| version.parse().ok()),
        unescape: true,
    };
    let post = decode(log_type, lines.iter().copied(), &receipt);
    assert!(post.statuses.len() + post.unreadable.len() <= lines.len());
    for execution in &post.executions {
        assert!(!execution.query_name.is_empty() && !execution.query_name.contains('\0'));
        assert!(execution.occurred_at <= receipt.received_at);
        for row in &execution.rows {
            let canonical = row.columns.canonical();
            assert!(!canonical.contains('\n'));
            let read: Value = serde_json::from_str(&canonical).expect("rows are JSON");
            assert!(!has_nul(&read));
            assert_eq!(
                read.as_object().map(serde_json::Map::len),
                Some(row.columns.len())
            );
        }
    }
    for status in &post.statuses {
        assert!(!status.message.contains('\0') && status.occurred_at <= receipt.received_at);
    }
    fingerprints(&PostFingerprints::of(lines).to_bytes());
}

/// Sanitised text is fit for Postgres, stays as it is, and says what the bytes said.
fn sanitised(bytes: &[u8]) {
    let once = sanitise(bytes);
    assert!(!once.text.contains('\0'));
    let twice = sanitise(once.text.as_bytes());
    assert_eq!(once.text, twice.text);
    assert!(!twice.lossy);
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        let read: Value = serde_json::from_str(&once.text).expect("what was JSON stays JSON");
        assert!(once.lossy || read == value);
    }
}

fn enroll(bytes: &[u8]) {
    let text = sanitise(bytes).text;
    if let Ok(request) = EnrollRequest::parse(&text, DEFAULT_SECRET_KEY) {
        assert!(!has_nul(&Value::Object(request.host_details.clone())));
        assert!(!request.host_identifier.contains('\0'));
        let _ = request.detail("system_info", "hardware_serial");
    }
}

/// Postgres refuses NUL in texts.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn small_requests(bytes: &[u8]) {
    let text = sanitise(bytes).text;
    let config = ConfigRequest::parse(&text, None).map(|request| request.node_key);
    let read = DistributedReadRequest::parse(&text, None).map(|request| request.node_key);
    assert_eq!(config.ok(), read.ok());
}

fn distributed_write(bytes: &[u8]) {
    let text = sanitise(bytes).text;
    let Ok(write) = DistributedWrite::parse(&text, Some("header")) else {
        return;
    };
    let mut ids = std::collections::HashSet::new();
    for result in &write.results {
        assert!(ids.insert(&result.id), "an id comes once");
        assert!(!result.id.contains('\0') && !result.message.contains('\0'));
        let rows: Vec<Value> = serde_json::from_str(result.rows.as_json()).unwrap_or_default();
        assert!(result.rows.decode().len() <= rows.len().max(1) || rows.is_empty());
        let _ = result.succeeded();
    }
}

fn carve_start(bytes: &[u8]) {
    let text = sanitise(bytes).text;
    let Ok(start) = CarveStart::parse(&text, None) else {
        return;
    };
    let Some(shape) = Shape::of(&start) else {
        return;
    };
    let blocks = u64::from(shape.block_count());
    assert_eq!(shape.len_of(blocks), None);
    if blocks < 1000 {
        let sum: usize = (0..blocks).filter_map(|block| shape.len_of(block)).sum();
        assert_eq!(sum as u64, shape.carve_size());
    }
}

fn carve_block(bytes: &[u8]) {
    let text = sanitise(bytes).text;
    if let Ok(block) = CarveBlock::parse(&text)
        && let Ok(data) = block.decode_data()
    {
        assert!(data.len() <= block.data_len_at_most());
    }
}

/// Names in an archive are only shown: none may do more than that on a page or in a terminal.
fn carve_path(bytes: &[u8]) {
    let path = entry_path(bytes, "c");
    assert!(path.len() <= 4096 + "…".len());
    assert!(!shown_path(&path).chars().any(char::is_control));
}

/// An archive is listed within its bounds, whatever it says; cut off, it is listed as far as it went; files lie inside of it.
fn carve_listing(bytes: &[u8]) {
    for format in [
        ArchiveFormat::of(bytes),
        ArchiveFormat::Tar,
        ArchiveFormat::ZstdTar,
    ] {
        let listing = list(bytes, format, "c");
        let count = listing.file_count.unwrap_or_default() as usize;
        assert_eq!(listing.files.len(), count.min(MAX_FILES));
        assert!(listing.file_count.is_some() || !listing.problem.is_empty());
        assert!(!listing.problem.chars().any(char::is_control));
        let mut end = 0;
        for file in &listing.files {
            assert!(file.path.len() <= 4096 + "…".len() && !file.path.contains('\0'));
            let Some(at) = file.data_at else { continue };
            assert!(at > end && at % 512 == 0, "files lie one behind the other");
            assert!(format != ArchiveFormat::Tar || at <= bytes.len() as u64);
            end = at;
        }
        let half = list(&bytes[..bytes.len() / 2], format, "c");
        assert_eq!(half.files, listing.files[..half.files.len()]);
    }
}

/// A file that was read can be written, and a file that we wrote is read as the same.
fn packs(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(file) = pack_file::parse(&text, "imported") {
        round_trip(&file);
    }
}

fn pack_yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(file) = pack_file::parse_yaml(&text, "imported.yml") {
        round_trip(&file);
    }
}

fn round_trip(file: &pack_file::ImportedFile) {
    let once = pack_file::write(file);
    let read = pack_file::parse(&Value::Object(once.clone()).to_string(), "imported");
    let read = read.expect("what we write can be read");
    assert_eq!(pack_file::write(&read), once);
}

/// Keys of other managers: hashes come out, and nothing that Postgres would refuse or a target could not say.
fn node_keys(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(file) = KeyFile::read(&text) else {
        return;
    };
    for node in &file.nodes {
        assert_eq!(node.key_sha256.len(), 64);
        assert!(!node.host_identifier.is_empty());
        let texts = [
            &node.host_identifier,
            &node.hostname,
            &node.platform,
            &node.hardware_uuid,
            &node.hardware_serial,
        ];
        assert!(texts.iter().all(|text| !text.contains('\0')));
        assert!(node.tags.iter().all(|tag| is_name(tag)));
    }
}

/// A document of top-level keys: each is judged, its SQL found, and merging it with itself changes nothing but repeats in lists.
fn config_sections(bytes: &[u8]) {
    let Ok(Value::Object(document)) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    for (key, value) in &document {
        let flaws = section_check::check_value(key, value);
        let _ = section_check::check_key(key);
        for statement in section::statements(key, value) {
            assert!(value.to_string().contains(&*escaped(&statement.sql)));
        }
        let mut once = value.clone();
        section::merge(key, &mut once, value);
        let mut twice = once.clone();
        section::merge(key, &mut twice, &once);
        assert_eq!(once, twice, "{flaws:?}");
    }
}

fn escaped(text: &str) -> String {
    Value::from(text).to_string()
}

fn rule_json(bytes: &[u8]) {
    if let Ok(json) = serde_json::from_slice::<Value>(bytes) {
        let _ = rule::parse(&json);
    }
}

fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(target) = Target::parse(&text) {
        let _ = target.tags();
        let again = Target::parse(&text).expect("it was read before");
        assert_eq!(target.tags(), again.tags());
    }
}

fn version(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = OsqueryVersion::from_user_agent(&text).or_else(|| text.parse().ok());
    if let Some(version) = read {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
}

fn fingerprints(bytes: &[u8]) {
    if let Ok(read) = PostFingerprints::from_bytes(bytes) {
        assert_eq!(
            PostFingerprints::from_bytes(&read.to_bytes()).ok(),
            Some(read)
        );
    }
}
