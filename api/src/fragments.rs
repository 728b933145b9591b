//! Who sends a body that is cut off, malformed or too large, as far as its beginning and its end tell.

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
}
