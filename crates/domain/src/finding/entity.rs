//! Which matter a match belongs to.

use sha2::{Digest, Sha256};

use crate::osquery::Columns;

/// Longest text of an entity, in characters.
const MAX_ENTITY_CHARS: usize = 200;

/// What a finding is about on its node: a port, an extension, a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity {
    /// SHA-256 of the names and values: equal for equal entities, whatever the order of the columns.
    pub hash: [u8; 32],
    /// For people: `port: 4444, path: /usr/bin/nc`, one line, cut when long.
    pub text: String,
}

impl Entity {
    /// The entity of a row: the rule's entity columns, or all columns when the rule names none or the row has none of
    /// those it names.
    #[must_use]
    pub fn of(entity_columns: &[String], row: &Columns<'_>) -> Self {
        let mut named: Vec<(&str, &str)> = entity_columns
            .iter()
            .filter_map(|name| Some((name.as_str(), row.get(name)?)))
            .collect();
        if named.is_empty() {
            named = row.iter().collect();
        }
        let text = display_text(&named);
        named.sort_unstable();
        named.dedup();
        let mut hasher = Sha256::new();
        for part in named.iter().flat_map(|(name, value)| [name, value]) {
            // With lengths, so that no two rows run into the same bytes.
            hasher.update(part.len().to_be_bytes());
            hasher.update(part);
        }
        Self {
            hash: hasher.finalize().into(),
            text,
        }
    }
}

/// Text of a node is hostile: it gets neither line breaks nor other control characters into our lines.
fn display_text(columns: &[(&str, &str)]) -> String {
    let shown = columns.iter().filter(|(_, value)| !value.is_empty());
    let joined = shown
        .map(|(name, value)| format!("{name}: {value}"))
        .collect::<Vec<_>>()
        .join(", ");
    let plain = |c: char| {
        if c.is_control() || is_invisible(c) {
            ' '
        } else {
            c
        }
    };
    if joined.chars().nth(MAX_ENTITY_CHARS).is_none() {
        return joined.chars().map(plain).collect();
    }
    joined
        .chars()
        .take(MAX_ENTITY_CHARS - 1)
        .map(plain)
        .chain(['…'])
        .collect()
}

/// Line separators, and characters that change the direction of text or hide in it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(columns: &[&str], row: &[(&'static str, &'static str)]) -> Entity {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        Entity::of(&columns, &Columns::new(row.iter().copied()))
    }

    #[test]
    fn an_entity_is_the_named_columns_or_the_whole_row() {
        let row = [("path", "/usr/bin/nc"), ("pid", "7"), ("port", "4444")];
        let other_pid = [("path", "/usr/bin/nc"), ("pid", "8"), ("port", "4444")];
        let named = entity(&["port", "path"], &row);
        assert_eq!(named.text, "port: 4444, path: /usr/bin/nc");
        assert_eq!(named.hash, entity(&["path", "port"], &other_pid).hash);
        assert_ne!(entity(&[], &row).hash, entity(&[], &other_pid).hash);
        assert_eq!(entity(&["missing"], &row), entity(&[], &row));
        assert_eq!(
            entity(&[], &[("b", "1"), ("a", "2")]).hash,
            entity(&[], &[("a", "2"), ("b", "1")]).hash
        );
        assert_ne!(
            entity(&[], &[("a", "bc")]).hash,
            entity(&[], &[("ab", "c")]).hash
        );
    }

    #[test]
    fn the_text_of_an_entity_is_one_short_line() {
        let hostile = entity(&[], &[("a", "x\r\nSubject:\u{202E}y\u{1b}[2J"), ("b", "")]);
        assert_eq!(hostile.text, "a: x  Subject: y [2J");
        let long = "é".repeat(500);
        let text = Entity::of(&[], &Columns::new([("a", long)])).text;
        assert_eq!(text.chars().count(), MAX_ENTITY_CHARS);
        assert!(text.ends_with('…'));
    }
}
