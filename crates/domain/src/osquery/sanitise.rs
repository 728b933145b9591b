//! Makes what a node sent fit for a strict JSON parser and for Postgres, without refusing any of it.
//!
//! osqueryd's JSON writer does not validate UTF-8: file names, command lines and Windows code pages arrive as raw
//! bytes in snapshots, live query results and status lines. `\u0000` is seen in `host_details`; lone surrogates come
//! from foreign forwarders. One bad value must never cost the rest of a post, so each becomes U+FFFD here.

use std::borrow::Cow;

const REPLACEMENT: &str = "\u{FFFD}";
const BYTE_ORDER_MARK: char = '\u{FEFF}';
/// Length of an escape such as `\u00e9`.
const UNICODE_ESCAPE_LEN: usize = 6;

/// Text that serde_json can parse and Postgres can store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sanitised<'a> {
    /// The text; borrowed when nothing had to be replaced.
    pub text: Cow<'a, str>,
    /// Whether something was replaced by U+FFFD, so that the text is not what the node has.
    pub lossy: bool,
}

/// Replaces invalid UTF-8, NUL (raw or as `\u0000`) and lone surrogate escapes by U+FFFD, in keys and values alike,
/// and drops a leading byte order mark. What a strict parser would refuse although its meaning is plain is written as JSON has it:
/// raw control characters inside of strings, and backslashes that begin no escape. Everything else, malformed JSON included, passes
/// unchanged.
#[must_use]
pub fn sanitise(bytes: &[u8]) -> Sanitised<'_> {
    let decoded = String::from_utf8_lossy(bytes);
    let mut lossy = matches!(decoded, Cow::Owned(_));
    let mut text = match decoded {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_start_matches(BYTE_ORDER_MARK)),
        Cow::Owned(text) if text.starts_with(BYTE_ORDER_MARK) => {
            Cow::Owned(text.trim_start_matches(BYTE_ORDER_MARK).to_owned())
        }
        owned @ Cow::Owned(_) => owned,
    };
    if text.contains('\0') {
        text = Cow::Owned(text.replace('\0', "\u{FFFD}"));
        lossy = true;
    }
    if let Some(repaired) = replace_bad_escapes(&text) {
        lossy |= repaired.lossy;
        text = Cow::Owned(repaired.text.into_owned());
    }
    if let Some(escaped) = escape_controls(&text) {
        text = Cow::Owned(escaped);
    }
    Sanitised { text, lossy }
}

/// The text without `\u0000`, lone surrogate escapes and backslashes that begin nothing, or `None` when it has none of them.
///
/// Outside of strings JSON knows no backslash, so there is no need to follow where strings begin and end; only that
/// in `\\u0000` the second backslash starts nothing.
fn replace_bad_escapes(text: &str) -> Option<Sanitised<'static>> {
    let mut repaired: Option<String> = None;
    let mut lossy = false;
    let mut copied = 0; // everything before this index is in `repaired`, once there is one
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let start = at + found;
        let escape = Escape::at(&text[start..]);
        if let Some(better) = escape.better {
            let out = repaired.get_or_insert_with(|| String::with_capacity(text.len()));
            out.push_str(&text[copied..start]);
            out.push_str(better);
            lossy |= better == REPLACEMENT;
            copied = start + escape.len;
        }
        at = start + escape.len;
    }
    let mut out = repaired?;
    out.push_str(&text[copied..]);
    Some(Sanitised {
        text: Cow::Owned(out),
        lossy,
    })
}

/// What a text begins with, which starts with a backslash.
struct Escape {
    /// In bytes.
    len: usize,
    /// What has to stand in its place.
    better: Option<&'static str>,
}

impl Escape {
    const REPLACED: Self = Self {
        len: UNICODE_ESCAPE_LEN,
        better: Some(REPLACEMENT),
    };

    fn at(text: &str) -> Self {
        let fine = |len| Self { len, better: None };
        match unicode_escape(text) {
            Some(0 | 0xDC00..=0xDFFF) => Self::REPLACED,
            Some(0xD800..=0xDBFF) => match unicode_escape(&text[UNICODE_ESCAPE_LEN..]) {
                Some(0xDC00..=0xDFFF) => fine(2 * UNICODE_ESCAPE_LEN),
                _ => Self::REPLACED,
            },
            Some(_) => fine(UNICODE_ESCAPE_LEN),
            None => match text.as_bytes().get(1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => fine(2),
                // The text ends here.
                None => fine(1),
                // `\xC3` by a writer that forgot to escape the backslash.
                Some(_) => Self {
                    len: 1,
                    better: Some(r"\\"),
                },
            },
        }
    }
}

/// The text with control characters in strings as escapes, or `None` when there are none. Between values they are white space.
fn escape_controls(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| byte < b' ') {
        return None;
    }
    let mut escaped: Option<String> = None;
    let mut copied = 0;
    let (mut in_string, mut behind_backslash) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if std::mem::take(&mut behind_backslash) => {}
            b'\\' => behind_backslash = true,
            b'"' => in_string = !in_string,
            0..b' ' if in_string => {
                let out = escaped.get_or_insert_with(|| String::with_capacity(text.len() + 64));
                out.push_str(&text[copied..at]);
                out.push_str(&format!("\\u{byte:04x}"));
                copied = at + 1;
            }
            _ => {}
        }
    }
    let mut out = escaped?;
    out.push_str(&text[copied..]);
    Some(out)
}

fn unicode_escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None; // from_str_radix would take a sign
    }
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clean_text_is_borrowed_and_not_lossy() {
        let clean = "{\"a\":\"é \\u00e9 \\ud83d\\ude00 \\\\u0000 \\/ \\n\"}";
        let sanitised = sanitise(clean.as_bytes());
        assert!(matches!(sanitised.text, Cow::Borrowed(text) if text == clean));
        assert!(!sanitised.lossy);
    }

    #[test]
    fn what_a_parser_or_postgres_would_refuse_becomes_a_replacement_character() {
        let cases: &[(&str, &[u8], &str)] = &[
            ("R16 raw 0xFF", b"\"\xFFA\xC3\"", "\"\u{FFFD}A\u{FFFD}\""),
            (
                "R16 raw surrogate bytes",
                b"\"\xED\xA0\x80\"",
                "\"\u{FFFD}\u{FFFD}\u{FFFD}\"",
            ),
            ("R17 lone high surrogate", br#""\uD800x""#, "\"\u{FFFD}x\""),
            ("R17 lone low surrogate", br#""\udc00""#, "\"\u{FFFD}\""),
            (
                "R17 high before another escape",
                br#""\uD800\n""#,
                "\"\u{FFFD}\\n\"",
            ),
            (
                "R17 two highs, then a pair",
                br#""\uD800\uD83D\uDE00""#,
                "\"\u{FFFD}\\uD83D\\uDE00\"",
            ),
            (
                "R18 escaped NUL in key and value",
                br#"{"a\u0000":"\u0000"}"#,
                "{\"a\u{FFFD}\":\"\u{FFFD}\"}",
            ),
            ("R18 raw NUL", b"\"a\0b\"", "\"a\u{FFFD}b\""),
            (
                "a backslash, then an escaped NUL",
                br#""\\\u0000""#,
                "\"\\\\\u{FFFD}\"",
            ),
        ];
        for (name, bytes, expected) in cases {
            let sanitised = sanitise(bytes);
            assert_eq!(sanitised.text, *expected, "{name}");
            assert!(sanitised.lossy, "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_odd_ends_do_not_panic() {
        assert_eq!(sanitise("\u{FEFF}{}".as_bytes()).text, "{}");
        assert_eq!(sanitise(b"\xEF\xBB\xBF\"\xFF\"").text, "\"\u{FFFD}\"");
        for odd in [
            "\\",
            "\\u",
            "\\u00",
            "\\u00é",
            "\\uD800\\",
            "\\é",
            "\\u+123",
        ] {
            assert!(!sanitise(odd.as_bytes()).text.is_empty());
        }
    }

    #[test]
    fn what_is_plain_though_not_json_is_written_as_json_has_it() {
        let cases: &[(&str, &str)] = &[
            ("{\"a\":\"one\ntwo\"}\n", "{\"a\":\"one\\u000atwo\"}\n"),
            (
                "{\r\n\t\"a\":\"\t\\\"\u{1}\"}",
                "{\r\n\t\"a\":\"\\u0009\\\"\\u0001\"}",
            ),
            (r#""\xD0\x9A \q""#, r#""\\xD0\\x9A \\q""#),
            (r#""\u12" and "\u00e""#, r#""\\u12" and "\\u00e""#),
            (r#""\é""#, r#""\\é""#),
        ];
        for (sent, expected) in cases {
            let sanitised = sanitise(sent.as_bytes());
            assert_eq!(sanitised.text, *expected);
            assert!(!sanitised.lossy, "{sent}");
        }
    }

    proptest! {
        #[test]
        fn a_string_of_anything_but_quotes_and_backslashes_can_be_parsed(bytes: Vec<u8>) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, b'"' | b'\\')).collect();
            let json = [b"\"".as_slice(), &bytes, b"\""].concat();
            let read: String = serde_json::from_str(&sanitise(&json).text).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes).replace('\0', "\u{FFFD}"));
        }

        #[test]
        fn any_string_survives_its_json_escaping_and_no_nul_is_left(bytes: Vec<u8>, value: String) {
            let once = sanitise(&bytes);
            prop_assert!(!once.text.contains('\0'));
            prop_assert_eq!(&sanitise(once.text.as_bytes()).text, &once.text);

            let json = serde_json::to_string(&value).unwrap();
            let read: String = serde_json::from_str(&sanitise(json.as_bytes()).text).unwrap();
            prop_assert_eq!(read, value.replace('\0', "\u{FFFD}"));
        }

        #[test]
        fn a_json_string_of_any_escapes_can_be_parsed(units: Vec<u16>) {
            let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let sanitised = sanitise(format!("\"{escapes}\"").as_bytes()).text.into_owned();
            let read: String = serde_json::from_str(&sanitised).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units).replace('\0', "\u{FFFD}"));
        }
    }
}
