//! Posts that are too large come again for ever, and block everything behind them. So they are refused only a few times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ostiary_domain::ids::NodeId;
use ostiary_domain::osquery::LogType;

/// How often each node was refused of late.
#[derive(Debug, Default)]
pub(crate) struct Oversized(Mutex<HashMap<NodeId, u32>>);

impl Oversized {
    /// Counts a refusal; `true` when there were enough of them.
    pub(crate) fn enough(&self, node: NodeId, refusals: u32) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(node).or_default();
        *count += 1;
        *count > refusals
    }

    /// A post of the node got through.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.is_empty() {
            counts.remove(&node);
        }
    }
}

/// What can be read of a body that is too large: its beginning, and its end if that was reached. osqueryd writes `data` first and
/// who it is last (seen with 5.23); others write it the other way round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragments<'a> {
    pub(crate) head: &'a str,
    pub(crate) end: &'a str,
}

impl<'a> Fragments<'a> {
    /// The node key. Nobody gains by writing another's key there who does not know it.
    pub(crate) fn node_key(self) -> Option<&'a str> {
        self.member("node_key")
    }

    /// A text of the root, beside the large member, never one of its rows.
    fn member(self, name: &str) -> Option<&'a str> {
        let before = || {
            let rest = self.head.trim_start().strip_prefix('{')?;
            text_member(rest.split(['{', '[']).next()?, name)
        };
        let behind = || {
            let rest = self.end.trim_end().strip_suffix('}')?;
            text_member(rest.rsplit(['}', ']']).next()?, name)
        };
        before().or_else(behind)
    }
}

fn text_member<'a>(members: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = members.split_once(&format!("\"{name}\""))?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    rest.split_once('"')
        .map(|(text, _)| text)
        .filter(|text| !text.contains('\\'))
}

/// What can be read of a log post: its type, and its whole lines as a JSON array.
pub(crate) fn whole_lines(post: Fragments<'_>) -> Option<(LogType, String, usize)> {
    let log_type = match LogType::parse(post.member("log_type")?) {
        LogType::Unknown => return None,
        log_type => log_type,
    };
    let head = post.head;
    let (_, rest) = head.split_once("\"data\"")?;
    let lines = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('[')?;
    let (end, count) = end_of_last_line(lines)?;
    Some((log_type, format!("[{}]", &lines[..end]), count))
}

/// Where the last whole object of a list ends, and how many there are.
fn end_of_last_line(lines: &str) -> Option<(usize, usize)> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut end, mut count) = (None, 0);
    for (index, byte) in lines.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    end = Some(index + 1);
                    count += 1;
                }
            }
            b']' => break,
            _ => {}
        }
    }
    end.map(|end| (end, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_of_a_post_that_was_cut_off_are_found() {
        let head = r#"{"node_key":"k1","log_type":"result","data":[{"a":"}]\""},{"b":{"c":[1]}},{"d":"cut o"#;
        let post = Fragments { head, end: "" };
        assert_eq!(post.node_key(), Some("k1"));
        let (log_type, lines, count) = whole_lines(post).unwrap();
        assert_eq!((log_type, count), (LogType::Result, 2));
        assert_eq!(lines, r#"[{"a":"}]\""},{"b":{"c":[1]}}]"#);
        let head = r#"{"log_type":"result","data":[{"a":"one line beyond the bou"#;
        assert!(whole_lines(Fragments { head, end: "" }).is_none());
    }

    #[test]
    fn who_sends_it_is_found_where_a_real_osqueryd_writes_it() {
        let log = Fragments {
            head: r#"{"data":[{"name":"q","columns":{"node_key":"no","log_type":"status"}},{"name":"cut o"#,
            end: r#"ff","columns":{"node_key":"no"}}],"log_type":"result","node_key":"nk-1"}"#,
        };
        assert_eq!(log.node_key(), Some("nk-1"));
        let (log_type, _, count) = whole_lines(log).unwrap();
        assert_eq!((log_type, count), (LogType::Result, 1));
        let write = Fragments {
            head: r#"{"queries":{"lq":[{"node_key":"no"},{"#,
            end: r#"}]},"statuses":{"lq":0},"messages":{"lq":""},"stats":{"lq":{}},"node_key":"nk-1"}"#,
        };
        assert_eq!(write.node_key(), Some("nk-1"));
        let unknown = Fragments {
            end: r#"ff","columns":{"node_key":"no"}}]}"#,
            ..log
        };
        assert_eq!(unknown.node_key(), None);
        assert!(whole_lines(unknown).is_none());
    }

    #[test]
    fn a_node_is_refused_a_few_times_and_then_not_any_more() {
        let oversized = Oversized::default();
        let node = NodeId(uuid::Uuid::from_u128(1));
        assert_eq!(
            [(); 4].map(|()| oversized.enough(node, 3)),
            [false, false, false, true]
        );
        oversized.forget(node);
        assert!(!oversized.enough(node, 3));
    }
}
