//! `/log` as a stream: the envelope is split while the body arrives, so that a post of 100 MiB costs no more memory than its longest
//! line.
//!
//! It only looks for strings and brackets. Whether a line is JSON is found out when it is decoded; so one malformed line costs
//! neither its neighbours nor the node key behind it. **Invariant:** what ends before its root object does is never [`whole`]: it
//! was cut off on the way, and the node has to send it again.
//!
//! [`whole`]: LogReader::finish

use super::{LogEnvelope, RequestError, sanitise};

/// `node_key` and `log_type` are read up to this size, in bytes; no other member is kept.
const MEMBER_MAX: usize = 64 * 1024;
/// Of the name of a member so much is kept, in bytes.
const NAME_MAX: usize = 256;

/// Takes the lines of a post, one by one, in order.
pub trait Lines {
    /// One line as sent: the bytes of a JSON value, or what stands in its place.
    fn line(&mut self, bytes: &[u8]);
    /// `data` begins again (a key that is sent twice): the last one counts.
    fn again(&mut self);
}

/// Splits a post while it arrives.
#[derive(Debug)]
pub struct LogReader {
    state: State,
    /// In a string, and behind a backslash in it.
    in_string: bool,
    escaped: bool,
    depth: usize,
    name: Vec<u8>,
    node_key: Option<Vec<u8>>,
    log_type: Option<Vec<u8>>,
    value: Vec<u8>,
    line_max: usize,
    too_long: bool,
    data: Option<Data>,
    lines: u64,
    lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    BeforeName,
    Name,
    BehindName,
    BeforeValue,
    Value,
    Lines,
    End,
    /// No JSON object, or something behind one.
    Bad,
}

/// What `data` was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// A list of lines.
    List,
    /// Something else, which was taken for one line; or nothing: `""`, as osquery before 3.2 wrote an empty list, or null.
    Single,
}

/// What a post says beside its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: String,
    /// The wire's name of the log, `""` when it was not sent.
    pub log_type: String,
    /// `None` when it was not sent.
    pub data: Option<Data>,
    /// How many lines were handed out.
    pub lines: u64,
    /// How many lines were longer than allowed, and left out.
    pub lost: u64,
}

impl LogReader {
    /// A reader that leaves out lines of more than `line_max` bytes.
    #[must_use]
    pub fn new(line_max: usize) -> Self {
        Self {
            state: State::Start,
            in_string: false,
            escaped: false,
            depth: 0,
            name: Vec::new(),
            node_key: None,
            log_type: None,
            value: Vec::new(),
            line_max,
            too_long: false,
            data: None,
            lines: 0,
            lost: 0,
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8], lines: &mut impl Lines) {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::Value | State::Lines => self.value(&bytes[at..], lines),
                State::Name => self.name(&bytes[at..]),
                _ => {
                    self.between(bytes[at], lines);
                    1
                }
            };
        }
    }

    /// Everything was pushed: what the post says beside its lines. `header_key` is the key of the `Authorization` header, used when
    /// the body has none.
    ///
    /// # Errors
    /// The body is not one whole JSON object, or no node key is to be found.
    pub fn finish(self, header_key: Option<&str>) -> Result<LogHead, RequestError> {
        if self.state != State::End {
            return Err(RequestError::NotAnObject(self.parse_error()));
        }
        // These are read as strictly as ever; a member that nobody needs may be malformed.
        let mut json = b"{".to_vec();
        for (name, value) in [("node_key", &self.node_key), ("log_type", &self.log_type)] {
            let Some(value) = value else { continue };
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(format!("\"{name}\":").as_bytes());
            json.extend_from_slice(value);
        }
        json.push(b'}');
        let text = sanitise(&json).text;
        let envelope = LogEnvelope::split(&text, header_key)?;
        Ok(LogHead {
            node_key: envelope.node_key.clone().into_owned(),
            log_type: envelope.log_type.clone().into_owned(),
            data: self.data,
            lines: self.lines,
            lost: self.lost,
        })
    }

    /// How many lines were too long so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How many bytes it holds, about.
    #[must_use]
    pub fn held(&self) -> usize {
        self.value.capacity()
    }

    /// The node key, if it has arrived whole: what can be told of a body that is not read to its end.
    #[must_use]
    pub fn node_key(&self) -> Option<String> {
        text(self.node_key.as_deref()?)
    }

    /// The log's name, likewise.
    #[must_use]
    pub fn log_type(&self) -> Option<String> {
        text(self.log_type.as_deref()?)
    }

    /// serde_json's own words for what is wrong; ours would say no more.
    fn parse_error(&self) -> serde_json::Error {
        let shown = match self.state {
            State::Bad => "x",
            State::Start => "",
            _ => "{",
        };
        serde_json::from_str::<serde::de::IgnoredAny>(shown)
            .expect_err("none of these is whole JSON")
    }

    fn between(&mut self, byte: u8, lines: &mut impl Lines) {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return;
        }
        self.state = match (self.state, byte) {
            // A byte order mark.
            (State::Start, 0xEF | 0xBB | 0xBF) => State::Start,
            (State::Start, b'{') => State::BeforeName,
            (State::BeforeName, b',') => State::BeforeName,
            (State::BeforeName, b'"') => {
                self.name.clear();
                State::Name
            }
            (State::BeforeName, b'}') => State::End,
            (State::BehindName, b':') => State::BeforeValue,
            (State::BeforeValue, byte) => return self.begin_value(byte, lines),
            _ => State::Bad,
        };
    }

    fn begin_value(&mut self, byte: u8, lines: &mut impl Lines) {
        self.value.clear();
        (self.too_long, self.depth, self.in_string) = (false, 0, false);
        let is_list = byte == b'[';
        if self.is_data() {
            if self.data.is_some() {
                lines.again();
                (self.lines, self.lost) = (0, 0);
            }
            self.data = Some(if is_list { Data::List } else { Data::Single });
        }
        if self.is_data() && is_list {
            self.state = State::Lines;
        } else {
            self.state = State::Value;
            self.take(byte);
        }
    }

    fn is_data(&self) -> bool {
        self.name == b"data"
    }

    /// The rest of a name; gives how many bytes that took.
    fn name(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            if std::mem::take(&mut self.escaped) {
                self.name.push(*byte);
            } else if *byte == b'"' {
                // `no\u0064e_key` is the same name.
                let name = [b"\"".as_slice(), &self.name, b"\""].concat();
                if let Ok(name) = serde_json::from_str::<String>(&sanitise(&name).text) {
                    self.name = name.into_bytes();
                }
                self.state = State::BehindName;
                return index + 1;
            } else {
                self.escaped = *byte == b'\\';
                self.name.push(*byte);
            }
            self.name.truncate(NAME_MAX);
        }
        bytes.len()
    }

    /// A value, or the lines of `data`; gives how many bytes were taken.
    fn value(&mut self, bytes: &[u8], lines: &mut impl Lines) -> usize {
        if self.in_string {
            return self.string(bytes);
        }
        match bytes[0] {
            b'}' | b']' if self.depth == 0 => {
                self.end_of(bytes[0], lines);
                1
            }
            b',' if self.depth == 0 => {
                if self.state == State::Lines {
                    self.end_of_line(lines);
                } else {
                    self.end_of_value(lines);
                    self.state = State::BeforeName;
                }
                1
            }
            byte => {
                self.take(byte);
                1
            }
        }
    }

    /// A bracket that closes more than the value.
    fn end_of(&mut self, bracket: u8, lines: &mut impl Lines) {
        match (self.state, bracket) {
            (State::Lines, b']') => {
                self.end_of_line(lines);
                self.state = State::BeforeName;
            }
            (State::Value, b'}') => {
                self.end_of_value(lines);
                self.state = State::End;
            }
            _ => self.take_raw(bracket),
        }
    }

    /// Text up to where the string ends.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.escaped) {
            self.take_raw(bytes[0]);
            return 1;
        }
        let end = bytes
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\'))
            .unwrap_or(bytes.len());
        self.take_all(&bytes[..end]);
        let Some(byte) = bytes.get(end) else {
            return end;
        };
        self.take_raw(*byte);
        if *byte == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        end + 1
    }

    fn take(&mut self, byte: u8) {
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            // Between lines; inside a value it is kept as sent.
            b' ' | b'\t' | b'\r' | b'\n' if self.value.is_empty() => return,
            _ => {}
        }
        self.take_raw(byte);
    }

    fn take_raw(&mut self, byte: u8) {
        self.take_all(&[byte]);
    }

    fn take_all(&mut self, bytes: &[u8]) {
        let max = match self.name.as_slice() {
            b"data" => self.line_max,
            b"node_key" | b"log_type" => MEMBER_MAX,
            _ => return,
        };
        if self.too_long || self.value.len() + bytes.len() > max {
            self.too_long = true;
        } else {
            self.value.extend_from_slice(bytes);
        }
    }

    fn end_of_line(&mut self, lines: &mut impl Lines) {
        let line = self.value.trim_ascii_end();
        if std::mem::take(&mut self.too_long) {
            self.lost += 1;
        } else if !line.is_empty() {
            self.lines += 1;
            lines.line(line);
        }
        self.value.clear();
    }

    fn end_of_value(&mut self, lines: &mut impl Lines) {
        if self.is_data() {
            if matches!(self.value.trim_ascii_end(), b"\"\"" | b"null") {
                self.value.clear();
            }
            return self.end_of_line(lines);
        }
        let value = (!self.too_long).then(|| self.value.clone());
        match self.name.as_slice() {
            b"node_key" => self.node_key = value,
            b"log_type" => self.log_type = value,
            _ => {}
        }
    }
}

fn text(value: &[u8]) -> Option<String> {
    serde_json::from_str(&sanitise(value).text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Kept(Vec<String>);

    impl Lines for Kept {
        fn line(&mut self, bytes: &[u8]) {
            self.0.push(String::from_utf8_lossy(bytes).into_owned());
        }
        fn again(&mut self) {
            self.0.clear();
        }
    }

    fn read_in(body: &[u8], size: usize) -> (Result<LogHead, RequestError>, Vec<String>) {
        let (mut reader, mut kept) = (LogReader::new(1000), Kept::default());
        for piece in body.chunks(size) {
            reader.push(piece, &mut kept);
        }
        (reader.finish(None), kept.0)
    }

    /// The same, whatever the pieces.
    fn read(body: &[u8]) -> (Result<LogHead, RequestError>, Vec<String>) {
        let whole = read_in(body, usize::MAX);
        for size in 1..7 {
            let pieces = read_in(body, size);
            assert_eq!(pieces.1, whole.1);
            assert_eq!(pieces.0.as_ref().ok(), whole.0.as_ref().ok());
        }
        whole
    }

    fn lines_of(body: &str) -> Vec<String> {
        let (head, lines) = read(body.as_bytes());
        let head = head.unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!(head.node_key, "K", "{body}");
        assert_eq!(head.lines, lines.len() as u64, "{body}");
        lines
    }

    #[test]
    fn lines_are_handed_out_as_they_were_sent_in_any_order_of_keys() {
        let expected = [
            r#"{"a":18446744073709551615,"b":"}]\"\\"}"#,
            "1",
            r#""x,y""#,
            "[[1],2]",
        ];
        for body in [
            r#"{"node_key":"K","log_type":"result","data":[{"a":18446744073709551615,"b":"}]\"\\"},1,"x,y",[[1],2]]}"#,
            "\u{feff}{ \"data\" : [\n {\"a\":18446744073709551615,\"b\":\"}]\\\"\\\\\"} , 1 ,\"x,y\",[[1],2] ] , \"x\":{\"node_key\":[3]},\"log_type\":\"result\",\"no\\u0064e_key\":\"K\"}\r\n",
        ] {
            assert_eq!(lines_of(body), expected, "{body}");
        }
    }

    #[test]
    fn r21_odd_data_is_one_line_or_none() {
        let single = |data: &str| lines_of(&format!(r#"{{"data":{data},"node_key":"K"}}"#));
        assert_eq!(single("[]"), Vec::<String>::new());
        assert_eq!(single(r#""""#), Vec::<String>::new());
        assert_eq!(single("null"), Vec::<String>::new());
        assert_eq!(single(r#"{"a":[1,2]}"#), [r#"{"a":[1,2]}"#]);
        assert_eq!(single("7"), ["7"]);
        let (head, _) = read(br#"{"node_key":"K","log_type":"status"}"#);
        assert_eq!(head.unwrap().data, None);
    }

    #[test]
    fn a_malformed_line_costs_neither_its_neighbours_nor_the_node_key_behind_it() {
        let body = r#"{"data":[{"a":1},{"b":},nonsense,{"c":'x'}},{"d":1}],"log_type":"result","node_key":"K"}"#;
        assert_eq!(
            lines_of(body),
            [
                r#"{"a":1}"#,
                r#"{"b":}"#,
                "nonsense",
                r#"{"c":'x'}}"#,
                r#"{"d":1}"#
            ]
        );
        assert_eq!(
            lines_of("{\"data\":[{\"a\":\"raw\nbreak\u{1}\"}],\"node_key\":\"K\"}"),
            ["{\"a\":\"raw\nbreak\u{1}\"}"]
        );
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let body = r#"{"node_key":"no","data":[1,2],"node_key":"K","data":[3]}"#;
        assert_eq!(lines_of(body), ["3"]);
    }

    #[test]
    fn what_was_cut_off_anywhere_is_not_whole() {
        let body = br#"{"data":[{"a":"b"}],"log_type":"result","node_key":"K"}"#;
        assert!(read(body).0.is_ok());
        for end in 0..body.len() {
            assert!(
                matches!(read(&body[..end]).0, Err(RequestError::NotAnObject(_))),
                "{end} bytes"
            );
        }
        for odd in [
            "{} {}",
            "[]",
            "\"text\"",
            "7",
            "null",
            "OK",
            "<html>",
            "{'node_key':'K'}",
        ] {
            let refused = read(odd.as_bytes()).0;
            assert!(
                matches!(refused, Err(RequestError::NotAnObject(_))),
                "{odd}"
            );
        }
    }

    #[test]
    fn a_key_that_is_missing_or_no_text_has_an_error_of_its_own() {
        let fail = |body: &str| read(body.as_bytes()).0.unwrap_err();
        assert!(matches!(
            fail(r#"{"data":[]}"#),
            RequestError::NodeKeyMissing
        ));
        assert!(matches!(
            fail(r#"{"node_key":1}"#),
            RequestError::NodeKeyNotText
        ));
        let mut reader = LogReader::new(10);
        reader.push(b"{}", &mut Kept::default());
        assert_eq!(reader.finish(Some("H")).unwrap().node_key, "H");
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_its_neighbours_are_kept() {
        let long = "x".repeat(2000);
        let body = format!(r#"{{"data":[1,"{long}",2],"node_key":"K","other":"{long}"}}"#);
        let (head, lines) = read(body.as_bytes());
        let head = head.unwrap();
        assert_eq!((head.lines, head.lost), (2, 1));
        assert_eq!(lines, ["1", "2"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_pieces_change_nothing(bytes: Vec<u8>, text in r#"[{}\[\]",:\\ datnoe_ky]{0,40}"#) {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let (head, lines) = read(body);
                prop_assert!(head.is_err() || head.is_ok_and(|head| head.lines == lines.len() as u64));
            }
        }

        #[test]
        fn whatever_serde_writes_is_split_as_serde_reads_it(lines: Vec<String>, key: String) {
            let body = serde_json::json!({"data": lines, "log_type": "result", "node_key": key}).to_string();
            let (head, kept) = read_in(body.as_bytes(), 5);
            prop_assert_eq!(head.unwrap().node_key, key.replace('\0', "\u{FFFD}"));
            let expected: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).filter(|line| line.len() <= 1000).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
