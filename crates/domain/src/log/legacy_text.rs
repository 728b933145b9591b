//! Two ways in which old versions of osquery mangled text, and how it is read back.

use crate::osquery::OsqueryVersion;

/// Which repairs the texts of one line need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) mojibake: bool,
    pub(super) hex: bool,
}

impl Repair {
    /// Result lines were written byte by byte before 3.2.
    pub(super) fn of_result(version: Option<OsqueryVersion>) -> Self {
        Self {
            mojibake: version.is_some_and(|version| version < OsqueryVersion::new(3, 2, 0)),
            hex: false,
        }
    }

    /// Status lines were written byte by byte before 5.10.
    pub(super) fn of_status(version: Option<OsqueryVersion>) -> Self {
        Self {
            mojibake: version.is_some_and(|version| version < OsqueryVersion::new(5, 10, 0)),
            hex: false,
        }
    }

    /// Differential rows had all their non-ASCII bytes escaped before 5.22.
    pub(super) fn with_hex(self, version: Option<OsqueryVersion>) -> Self {
        Self {
            hex: version.is_some_and(|version| version < OsqueryVersion::new(5, 22, 0)),
            ..self
        }
    }

    pub(super) fn is_needed(self) -> bool {
        self != Self::default()
    }

    /// The better text, or `None` when the text is fine as it is.
    pub(super) fn apply(self, text: &str) -> Option<String> {
        let joined = self.mojibake.then(|| join_bytes(text)).flatten();
        let unescaped = self
            .hex
            .then(|| decode_hex(joined.as_deref().unwrap_or(text)))
            .flatten();
        unescaped.or(joined)
    }
}

/// Reads `Ã©`, in truth the bytes C3 A9, as `é`: the old writer made one character of each byte.
fn join_bytes(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

/// Length of an escape such as `\xC3`.
const HEX_ESCAPE_LEN: usize = 4;

/// Reads the literal text `\xC3\xA9` as `é`, and `\x0A` as a line break.
///
/// osqueryd escapes neither backslashes nor printable ASCII, so a run is read only if each of its bytes is one that it
/// would have escaped and all together are UTF-8; `C:\xAB` stays a path.
fn decode_hex(text: &str) -> Option<String> {
    let mut decoded = None::<String>;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find("\\x") {
        let start = at + found;
        let run: Vec<u8> = (start..)
            .step_by(HEX_ESCAPE_LEN)
            .map_while(|index| escaped_byte(text, index))
            .collect();
        let end = start + HEX_ESCAPE_LEN * run.len();
        if let (false, Ok(better)) = (run.is_empty(), String::from_utf8(run)) {
            let out = decoded.get_or_insert_with(String::new);
            out.push_str(&text[copied..start]);
            out.push_str(&better.replace('\0', "\u{FFFD}"));
            copied = end;
        }
        at = end.max(start + 2);
    }
    let mut out = decoded?;
    out.push_str(&text[copied..]);
    Some(out)
}

fn escaped_byte(text: &str, index: usize) -> Option<u8> {
    let digits = text
        .get(index..index + HEX_ESCAPE_LEN)?
        .strip_prefix("\\x")?;
    if !digits
        .bytes()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'))
    {
        return None;
    }
    u8::from_str_radix(digits, 16)
        .ok()
        .filter(|byte| *byte < 0x20 || *byte >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r17_mojibake_is_joined_only_where_it_makes_utf8() {
        let repair = Repair {
            mojibake: true,
            hex: false,
        };
        assert_eq!(repair.apply("caf\u{C3}\u{A9}").as_deref(), Some("café"));
        for fine in ["plain", "café", "日本", "\u{C3}"] {
            assert_eq!(repair.apply(fine), None, "{fine}");
        }
    }

    #[test]
    fn literal_hex_is_read_only_where_osquery_would_have_written_it() {
        let repair = Repair {
            mojibake: false,
            hex: true,
        };
        let cases = [
            (r"caf\xC3\xA9!", Some("café!")),
            (r"a\x0Ab", Some("a\nb")),
            (r"a\x00b", Some("a\u{FFFD}b")),
            (r"\xD0\x9A", Some("К")),
            (r"C:\xAB\file", None),
            (r"\x41", None),
            (r"\xc3\xa9", None),
            (r"\xFFA\xC3", None),
            (r"\x", None),
            (r"\x0", None),
            (r"\xé", None),
            (r"\xFF and \xC3\xA9", Some(r"\xFF and é")),
        ];
        for (text, expected) in cases {
            assert_eq!(repair.apply(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_repair_panic_or_yield_a_nul(text in r"(\\x[0-9A-F]{0,2}|\PC){0,20}") {
            let repaired = Repair { mojibake: true, hex: true }.apply(&text);
            prop_assert!(!repaired.unwrap_or_default().contains('\0'));
        }
    }
}
