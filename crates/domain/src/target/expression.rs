//! What an expression is, whom it chooses, and how it is written.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::parse::{ParseError, is_word_character, one_or};
use crate::node::NodeFacts;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every node.
    All,
    /// No node.
    None,
    /// Nodes that carry this tag.
    Tag(String),
    /// Nodes of this osquery platform (`linux`, `darwin`, `windows`, `freebsd`).
    Platform(String),
    /// Nodes whose host name or host identifier fits this pattern.
    Host(String),
    /// Nodes that the inner expression does not choose.
    Not(Box<Target>),
    /// Nodes that all of them choose.
    And(Vec<Target>),
    /// Nodes that any of them chooses.
    Or(Vec<Target>),
}

/// A target as somebody typed it, beside what it means: kept, shown and written to JSON by its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TargetText {
    text: String,
    target: Target,
}

impl TargetText {
    /// Reads an expression.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self {
            target: Target::parse(text)?,
            text: text.to_owned(),
        })
    }

    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for TargetText {
    /// Every node.
    fn default() -> Self {
        Self {
            text: String::new(),
            target: Target::All,
        }
    }
}

impl std::ops::Deref for TargetText {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

impl From<TargetText> for String {
    fn from(target: TargetText) -> Self {
        target.text
    }
}

impl TryFrom<String> for TargetText {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::parse(&text)
    }
}

impl Target {
    /// Does the expression choose this node?
    #[must_use]
    pub fn matches(&self, node: &NodeFacts) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Tag(tag) => node.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)),
            Self::Platform(platform) => node.platform.eq_ignore_ascii_case(platform),
            Self::Host(pattern) => {
                wildcard(pattern, &node.hostname) || wildcard(pattern, &node.host_identifier)
            }
            Self::Not(inner) => !inner.matches(node),
            Self::And(all) => all.iter().all(|each| each.matches(node)),
            Self::Or(any) => any.iter().any(|each| each.matches(node)),
        }
    }

    /// The nodes that any of them chooses: none, if there is none of them.
    #[must_use]
    pub fn any(targets: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for target in targets {
            match target {
                Self::All => return Self::All,
                Self::None => {}
                Self::Or(inner) => parts.extend(inner),
                other => parts.push(other),
            }
        }
        let mut seen = Vec::new();
        parts.retain(|part| {
            !seen.contains(part) && {
                seen.push(part.clone());
                true
            }
        });
        if parts.is_empty() {
            return Self::None;
        }
        one_or(parts, Self::Or)
    }

    /// The nodes that both choose.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, target) | (target, Self::All) => target,
            (Self::And(mut parts), Self::And(others)) => {
                parts.extend(others);
                Self::And(parts)
            }
            (Self::And(mut parts), other) => {
                parts.push(other);
                Self::And(parts)
            }
            (target, Self::And(mut parts)) => {
                parts.insert(0, target);
                Self::And(parts)
            }
            (target, other) => Self::And(vec![target, other]),
        }
    }

    /// The nodes that this one chooses and the other does not.
    #[must_use]
    pub fn except(self, other: Self) -> Self {
        match other {
            Self::All => Self::None,
            Self::None => self,
            other => self.and(Self::Not(Box::new(other))),
        }
    }

    /// A node that has what the expression asks for and nothing else: its tags, its platform, its name. `None` if that is not told,
    /// as by `host:web-*`, or if nobody is chosen.
    #[must_use]
    pub fn example(&self) -> Option<NodeFacts> {
        let mut facts = NodeFacts::default();
        self.describe(&mut facts);
        self.matches(&facts).then_some(facts)
    }

    fn describe(&self, facts: &mut NodeFacts) {
        match self {
            Self::All | Self::None | Self::Not(_) => {}
            Self::Tag(tag) => facts.tags.push(tag.clone()),
            Self::Platform(platform) => facts.platform.clone_from(platform),
            Self::Host(pattern) => facts.hostname.clone_from(pattern),
            Self::And(parts) => parts.iter().for_each(|part| part.describe(facts)),
            Self::Or(parts) => parts.iter().take(1).for_each(|part| part.describe(facts)),
        }
    }

    /// As people leave it in a form: empty for every node.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::All => String::new(),
            other => other.to_string(),
        }
    }

    /// The tags that the expression names, for "what hangs on this tag?".
    #[must_use]
    pub fn tags(&self) -> Vec<&str> {
        match self {
            Self::Tag(tag) => vec![tag],
            Self::Not(inner) => inner.tags(),
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::tags).collect(),
            Self::All | Self::None | Self::Platform(_) | Self::Host(_) => Vec::new(),
        }
    }
}

/// The expression as it would be typed; parsing it again gives the same target.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Self::And(_) | Self::Or(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::All => f.write_str("*"),
            Self::None => f.write_str("none"),
            Self::Tag(tag) if is_plain(tag) => f.write_str(tag),
            Self::Tag(tag) => write!(f, "\"tag:{}\"", tag.replace('"', "")),
            Self::Platform(platform) => write!(f, "\"platform:{platform}\""),
            Self::Host(pattern) => write!(f, "\"host:{pattern}\""),
            Self::Not(inner) if matches!(**inner, Self::And(_) | Self::Or(_)) => {
                write!(f, "not ({inner})")
            }
            Self::Not(inner) => write!(f, "not {inner}"),
            Self::And(parts) => joined(f, parts, "and"),
            Self::Or(parts) => joined(f, parts, "or"),
        }
    }
}

fn is_plain(tag: &str) -> bool {
    !["and", "or", "not", "none", "*", ""]
        .iter()
        .any(|word| tag.eq_ignore_ascii_case(word))
        && !tag.contains(':')
        && tag.chars().all(is_word_character)
}

/// `*` stands for any run of characters, also none; everything else for itself, without regard to case.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
