//! Targets: which nodes a thing applies to, as one expression over tags and vitals.
//!
//! ```text
//! prod and linux and not database
//! (lab or staging) and platform:darwin
//! ```
//!
//! A bare word is a tag. `platform:linux`, `host:web-*` (host name or host identifier, `*` as wildcard, case-insensitive) and
//! `tag:x` are said with their field. `*` and the empty text mean every node, `none` no node. `not` binds tighter than `and`, `and`
//! tighter than `or`; words are compared without regard to case. A word with other characters than letters, digits and `-_.:/@*`
//! stands in double quotes.

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A word was needed here.
    #[error("a tag, a condition or \"(\" is missing at character {0}")]
    MissingOperand(usize),
    /// A bracket was opened and not closed.
    #[error("the \"(\" at character {0} is never closed")]
    Unclosed(usize),
    /// Something stands where `and`, `or` or the end was due.
    #[error("\"{word}\" at character {at} needs an \"and\" or \"or\" before it")]
    Unexpected {
        /// The word that was found.
        word: String,
        /// Where it begins, counted in characters from 1.
        at: usize,
    },
    /// A quoted word has no end.
    #[error("the quotation mark at character {0} is never closed")]
    UnclosedQuote(usize),
    /// A field that does not exist.
    #[error("there is no condition \"{0}:\"; there are tag:, platform: and host:")]
    UnknownField(String),
    /// Brackets inside brackets beyond reason.
    #[error("the expression is nested too deeply")]
    TooDeep,
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

const MAX_DEPTH: usize = 32;

impl Target {
    /// Reads an expression.
    ///
    /// # Errors
    /// The text is not an expression; the message says where and why.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let tokens = tokenise(text)?;
        if tokens.is_empty() {
            return Ok(Self::All);
        }
        let mut parser = Parser {
            tokens: &tokens,
            next: 0,
            end: text.chars().count() + 1,
        };
        let target = parser.or(0)?;
        match parser.peek() {
            None => Ok(target),
            Some(token) => Err(ParseError::Unexpected {
                word: token.text.clone(),
                at: token.at,
            }),
        }
    }

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
    !matches!(tag, "and" | "or" | "not" | "none" | "*" | "")
        && !tag.contains(':')
        && tag.chars().all(is_word_character)
}

fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || "-_.:/@*".contains(character)
}

/// `*` stands for any run of characters, also none; everything else for itself, without regard to case.
fn wildcard(pattern: &str, text: &str) -> bool {
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

#[derive(Debug)]
struct Token {
    text: String,
    quoted: bool,
    at: usize,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word)
    }
}

fn tokenise(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().enumerate().peekable();
    while let Some((index, character)) = characters.next() {
        let at = index + 1;
        match character {
            _ if character.is_whitespace() => {}
            '(' | ')' => tokens.push(Token {
                text: character.to_string(),
                quoted: false,
                at,
            }),
            '"' => {
                let mut word = String::new();
                loop {
                    match characters.next() {
                        Some((_, '"')) => break,
                        Some((_, inner)) => word.push(inner),
                        None => return Err(ParseError::UnclosedQuote(at)),
                    }
                }
                tokens.push(Token {
                    text: word,
                    quoted: true,
                    at,
                });
            }
            _ => {
                let mut word = String::from(character);
                while let Some((_, next)) = characters.next_if(|(_, next)| is_word_character(*next))
                {
                    word.push(next);
                }
                tokens.push(Token {
                    text: word,
                    quoted: false,
                    at,
                });
            }
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    end: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(word));
        self.next += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Result<Target, ParseError> {
        let mut parts = vec![self.and(depth)?];
        while self.take("or") {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Target::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Target, ParseError> {
        let mut parts = vec![self.not(depth)?];
        while self.take("and") {
            parts.push(self.not(depth)?);
        }
        Ok(one_or(parts, Target::And))
    }

    fn not(&mut self, depth: usize) -> Result<Target, ParseError> {
        if depth > MAX_DEPTH {
            return Err(ParseError::TooDeep);
        }
        if self.take("not") {
            return Ok(Target::Not(Box::new(self.not(depth + 1)?)));
        }
        let Some(token) = self.peek() else {
            return Err(ParseError::MissingOperand(self.end));
        };
        self.next += 1;
        if token.is("(") {
            let inner = self.or(depth + 1)?;
            return if self.take(")") {
                Ok(inner)
            } else {
                Err(ParseError::Unclosed(token.at))
            };
        }
        if token.is(")") || token.is("and") || token.is("or") {
            return Err(ParseError::MissingOperand(token.at));
        }
        operand(token)
    }
}

fn one_or(mut parts: Vec<Target>, many: fn(Vec<Target>) -> Target) -> Target {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        many(parts)
    }
}

fn operand(token: &Token) -> Result<Target, ParseError> {
    let text = token.text.as_str();
    if token.is("*") {
        return Ok(Target::All);
    }
    if token.is("none") {
        return Ok(Target::None);
    }
    match text.split_once(':') {
        Some(("tag", tag)) if !tag.is_empty() => Ok(Target::Tag(tag.to_owned())),
        Some(("platform", platform)) if !platform.is_empty() => {
            Ok(Target::Platform(platform.to_lowercase()))
        }
        Some(("host", pattern)) if !pattern.is_empty() => Ok(Target::Host(pattern.to_owned())),
        Some((field, _)) => Err(ParseError::UnknownField(field.to_owned())),
        None if text.is_empty() => Err(ParseError::MissingOperand(token.at)),
        None => Ok(Target::Tag(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(tags: &[&str]) -> NodeFacts {
        NodeFacts {
            tags: tags.iter().map(ToString::to_string).collect(),
            platform: "linux".into(),
            hostname: "web-1".into(),
            host_identifier: "4C4C".into(),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn an_expression_chooses_the_nodes_that_it_describes() {
        let cases = [
            ("", &[][..], true),
            ("*", &[], true),
            ("none", &[], false),
            ("prod", &["prod"], true),
            ("Prod", &["prod"], true),
            ("prod", &["lab"], false),
            ("prod and linux and not database", &["prod", "linux"], true),
            (
                "prod and linux and not database",
                &["prod", "linux", "database"],
                false,
            ),
            ("a or b and c", &["a"], true),
            ("(a or b) and c", &["a"], false),
            ("not not a", &["a"], true),
            ("platform:linux", &[], true),
            ("platform:darwin or host:WEB-*", &[], true),
            ("host:*b-1", &[], true),
            ("host:w*-2", &[], false),
            ("host:4c4c", &[], true),
            ("\"two words\"", &["two words"], true),
        ];
        for (text, tags, expected) in cases {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.matches(&node(tags)), expected, "{text} on {tags:?}");
            assert_eq!(
                Target::parse(&target.to_string()),
                Ok(target),
                "{text} does not survive a round trip"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_expression_is_refused_with_its_place() {
        let cases = [
            ("and", ParseError::MissingOperand(1)),
            ("a and", ParseError::MissingOperand(6)),
            ("(a or b", ParseError::Unclosed(1)),
            (
                "a b",
                ParseError::Unexpected {
                    word: "b".into(),
                    at: 3,
                },
            ),
            (
                "a )",
                ParseError::Unexpected {
                    word: ")".into(),
                    at: 3,
                },
            ),
            ("\"a", ParseError::UnclosedQuote(1)),
            ("colour:red", ParseError::UnknownField("colour".into())),
        ];
        for (text, error) in cases {
            assert_eq!(Target::parse(text), Err(error), "{text}");
        }
        assert_eq!(Target::parse(&"(".repeat(5000)), Err(ParseError::TooDeep));
    }

    #[test]
    fn the_tags_of_an_expression_are_listed() {
        assert_eq!(
            Target::parse("a and not (b or platform:linux)")
                .unwrap()
                .tags(),
            ["a", "b"]
        );
    }
}
