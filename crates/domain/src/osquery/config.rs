//! `/config`: the request. The document itself is assembled in `node_config`.

use super::json::text_of;
use super::{RequestError, object_members};

/// The body of `/config`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigRequest {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: String,
    /// What newer clients (after 5.23.1) remember of the last document; `""` at first. Older ones send none and must
    /// get the full document.
    pub etag: Option<String>,
}

impl ConfigRequest {
    /// Reads a sanitised body; `header_key` is the key of the `Authorization` header, used when the body has none.
    ///
    /// # Errors
    /// When the body is not a JSON object, carries what another endpoint takes, or no node key is to be found.
    pub fn parse(text: &str, header_key: Option<&str>) -> Result<Self, RequestError> {
        let members = object_members(text)?;
        members.ask_only()?;
        Ok(Self {
            node_key: members.node_key(header_key)?.into_owned(),
            // Anything but a text comes from no osqueryd that knows of etags: such a client must get the full document.
            etag: (members.get("etag"))
                .filter(|etag| etag.get().starts_with('"'))
                .map(|etag| text_of(etag).into_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_to_c5_the_body_has_the_word_and_the_header_stands_in() {
        let key = |body, header| ConfigRequest::parse(body, header).map(|request| request.node_key);
        assert_eq!(key(r#"{"node_key":"K"}"#, None).unwrap(), "K", "C1");
        assert_eq!(key(r#"{"node_key":""}"#, None).unwrap(), "", "C2");
        assert_eq!(
            key(r#"{"x":[{}],"node_key":"K"}"#, None).unwrap(),
            "K",
            "C3"
        );
        assert_eq!(key("{}", Some("H")).unwrap(), "H", "C4");
        assert_eq!(key(r#"{"node_key":"K"}"#, Some("H")).unwrap(), "K", "C5");
        assert!(matches!(key("{}", None), Err(RequestError::NodeKeyMissing)));
        assert!(matches!(
            key(r#"{"node_key":null}"#, None),
            Err(RequestError::NodeKeyMissing)
        ));
        assert!(matches!(
            key(r#"{"node_key":7}"#, Some("H")),
            Err(RequestError::NodeKeyNotText)
        ));
        assert!(matches!(
            key("[]", Some("H")),
            Err(RequestError::NotAnObject(_))
        ));
    }

    #[test]
    fn an_etag_is_told_from_none() {
        let etag = |body| ConfigRequest::parse(body, None).unwrap().etag;
        assert_eq!(etag(r#"{"node_key":"K","etag":""}"#).as_deref(), Some(""));
        for none in [
            r#"{"node_key":"K"}"#,
            r#"{"node_key":"K","etag":null}"#,
            r#"{"node_key":"K","etag":1}"#,
            r#"{"node_key":"K","etag":["e"]}"#,
        ] {
            assert_eq!(etag(none), None, "{none}");
        }
    }
}
