//! Labels and teams as target expressions.

use serde_json::Value;

/// Names of labels as tags; Fleet's label of all hosts narrows nothing.
pub(super) fn labels(value: Option<&Value>) -> Vec<String> {
    let names = value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    names
        .filter(|name| *name != "All Hosts")
        .map(tag_of)
        .collect()
}

pub(super) fn any_of(tags: &[String]) -> String {
    let quoted: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
    quoted.join(" or ")
}

/// Both expressions at once; an empty one chooses every node.
pub(super) fn both(one: &str, other: &str) -> String {
    let bracketed = |text: &str| {
        if text.contains(" or ") {
            format!("({text})")
        } else {
            text.to_owned()
        }
    };
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.to_owned(),
        (_, true) => one.to_owned(),
        _ => format!("{} and {}", bracketed(one), bracketed(other)),
    }
}

/// A name with blanks and the like as a tag: letters, digits, `-`, `_` and `.`.
pub(super) fn tag_of(name: &str) -> String {
    let mut tag = String::new();
    for character in name.trim().chars() {
        if character.is_alphanumeric() || "-_.".contains(character) {
            tag.push(character);
        } else if !tag.ends_with('-') {
            tag.push('-');
        }
    }
    tag.trim_matches('-').to_owned()
}

/// A tag as it stands in an expression, also when it looks like a word of it.
pub(super) fn quoted(tag: &str) -> String {
    if ["and", "or", "not", "none"]
        .iter()
        .any(|word| tag.eq_ignore_ascii_case(word))
    {
        format!("\"tag:{tag}\"")
    } else {
        tag.to_owned()
    }
}
