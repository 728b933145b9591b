//! Names of tags: what one may be, and what becomes of another manager's word for its nodes. Which nodes carry a tag, the store knows.

use sha1::{Digest as _, Sha1};

use crate::target::Target;

/// Characters of a tag's name at most.
pub const MAX_CHARS: usize = 60;

/// Can a target say this name without quotes? That is what makes a name a tag's.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.chars().count() <= MAX_CHARS
        && Target::parse(text).is_ok_and(|target| target == Target::Tag(text.to_owned()))
}

/// Another manager's name as a tag: letters, digits, `-`, `_` and `.`, everything else becomes a hyphen. A name that has none of them,
/// or is a word of targets, gets a name made of its hash, which is the same wherever it is met. `None` for blanks.
#[must_use]
pub fn name_of(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let mut name = String::new();
    for character in text.chars() {
        if character.is_alphanumeric() || "-_.".contains(character) {
            name.push(character);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_matches('-');
    let is_telling = name.chars().any(char::is_alphanumeric);
    if is_telling && is_name(name) {
        return Some(name.to_owned());
    }
    let hash = hex::encode(&Sha1::digest(text)[..4]);
    let start: String = name.chars().take(MAX_CHARS - 9).collect();
    let start = if is_telling { start.as_str() } else { "tag" };
    Some(format!("{start}-{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_one_that_a_target_can_say() {
        for (text, expected) in [
            ("prod", Some("prod")),
            (" web server ", Some("web-server")),
            ("Lab / 2. floor!", Some("Lab-2.-floor")),
            ("größe", Some("größe")),
            ("", None),
            ("  ", None),
        ] {
            assert_eq!(name_of(text).as_deref(), expected, "{text}");
        }
        let long = "x".repeat(200);
        for text in ["🚀", "???", "-_.", "and", "NOT", "none", &long] {
            let name = name_of(text).unwrap();
            assert!(is_name(&name), "{text}: {name}");
            assert_eq!(
                name_of(text).as_ref(),
                Some(&name),
                "it is the same each time"
            );
        }
        assert_ne!(name_of("🚀"), name_of("🦀"));
        for text in ["", "*", "a b", "tag:x", "none", "Or", &long] {
            assert!(!is_name(text), "{text}");
        }
    }
}
