//! How an expression is read.

use super::Target;

/// Brackets and negations inside each other at most.
const MAX_DEPTH: usize = 32;

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
}

pub(super) fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || "-_.:/@*".contains(character)
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

pub(super) fn one_or(mut parts: Vec<Target>, many: fn(Vec<Target>) -> Target) -> Target {
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
