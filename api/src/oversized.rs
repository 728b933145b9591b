//! Posts that are too large come again for ever, and block everything behind them. So they are refused only a few times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ostiary_domain::ids::NodeId;

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

    /// The name of the log.
    pub(crate) fn log_type(self) -> Option<&'a str> {
        self.member("log_type")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_it_is_found_where_a_real_osqueryd_writes_it() {
        let log = Fragments {
            head: r#"{"data":[{"name":"q","columns":{"node_key":"no","log_type":"status"}},{"name":"cut o"#,
            end: r#"ff","columns":{"node_key":"no"}}],"log_type":"result","node_key":"nk-1"}"#,
        };
        assert_eq!(log.node_key(), Some("nk-1"));
        assert_eq!(log.log_type(), Some("result"));
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
        assert_eq!(unknown.log_type(), None);
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
