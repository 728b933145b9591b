//! SQL taken apart: words, signs, and what stands between them. What it means is in `evaluate`.

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Quoted(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

impl Token {
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Token::Word(name) | Token::Quoted(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn raw(&self) -> String {
        match self {
            Token::Word(text) | Token::Quoted(text) | Token::Number(text) => text.clone(),
            Token::Text(text) => format!("'{text}'"),
            Token::Sign(sign) => (*sign).to_owned(),
        }
    }
}

const SIGNS: [&str; 20] = [
    "<>", "!=", "<=", ">=", "||", "==", "=", "<", ">", ",", ".", "*", "(", ")", ";", "+", "-", "/",
    "%", "&",
];

pub(super) fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = if let Some(comment) = rest.strip_prefix("--") {
            2 + comment.find('\n').unwrap_or(comment.len())
        } else if first == '\'' {
            let (text, used) = quoted(rest, '\'');
            tokens.push(Token::Text(text));
            used
        } else if let '"' | '`' | '[' = first {
            let (text, used) = quoted(rest, if first == '[' { ']' } else { first });
            tokens.push(Token::Quoted(text));
            used
        } else if first.is_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if first.is_ascii_digit() {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(rest.len());
            tokens.push(Token::Number(rest[..end].to_owned()));
            end
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else {
            first.len_utf8()
        };
        rest = rest[used..].trim_start();
    }
    tokens
}

/// The text between quotes, a doubled quote being one, and the bytes used.
fn quoted(source: &str, close: char) -> (String, usize) {
    let mut text = String::new();
    let mut chars = source.char_indices().skip(1).peekable();
    while let Some((at, character)) = chars.next() {
        if character == close {
            match chars.peek() {
                Some((_, next)) if *next == close => {
                    chars.next();
                }
                _ => return (text, at + close.len_utf8()),
            }
        }
        text.push(character);
    }
    (text, source.len())
}

/// Splits at a separator outside parentheses.
pub(super) fn split(tokens: &[Token], separates: impl Fn(&Token) -> bool) -> Vec<&[Token]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth -= 1,
            token if depth == 0 && separates(token) => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// Where a keyword stands outside parentheses.
pub(super) fn position(tokens: &[Token], keywords: &[&str]) -> Option<usize> {
    let mut depth = 0;
    tokens.iter().position(|token| {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth -= 1,
            _ => {}
        }
        depth == 0 && keywords.iter().any(|keyword| token.is(keyword))
    })
}

/// The tables that a statement reads, in lower case.
pub fn tables_of(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let mut names = Vec::new();
    for pair in tokens.windows(2) {
        if (pair[0].is("from") || pair[0].is("join"))
            && let Some(name) = pair[1].name()
        {
            names.push(name.to_lowercase());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_statement_are_named() {
        assert_eq!(tables_of("select 1 from A join `b` using(x)"), ["a", "b"]);
    }
}
