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

/// The node key in the beginning of a body. Nobody gains by writing another's key there who does not know it.
pub(crate) fn key_in_head(head: &str) -> Option<&str> {
    let (_, rest) = head.split_once("\"node_key\"")?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    rest.split_once('"')
        .map(|(key, _)| key)
        .filter(|key| !key.contains('\\'))
}

/// What can be read of a log post that was cut off: its type, and its whole lines as a JSON array.
pub(crate) fn whole_lines(head: &str) -> Option<(LogType, String, usize)> {
    let log_type = ["result", "status"].into_iter().find(|log_type| {
        let compact: String = head
            .chars()
            .take(4096)
            .filter(|c| !c.is_whitespace())
            .collect();
        compact.contains(&format!("\"log_type\":\"{log_type}\""))
    })?;
    let (_, rest) = head.split_once("\"data\"")?;
    let lines = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('[')?;
    let (end, count) = end_of_last_line(lines)?;
    Some((
        LogType::parse(log_type),
        format!("[{}]", &lines[..end]),
        count,
    ))
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
        assert_eq!(key_in_head(head), Some("k1"));
        let (log_type, lines, count) = whole_lines(head).unwrap();
        assert_eq!((log_type, count), (LogType::Result, 2));
        assert_eq!(lines, r#"[{"a":"}]\""},{"b":{"c":[1]}}]"#);
        assert!(
            whole_lines(r#"{"log_type":"result","data":[{"a":"one line beyond the bou"#).is_none()
        );
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
