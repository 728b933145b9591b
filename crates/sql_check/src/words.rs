//! The words of SQL with their places: what lies outside of strings and comments. Only as much of SQLite's lexis as is needed to
//! find statements, names and brackets; what the words mean is left to SQLite.

/// A word or a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// Its text; of a quoted name what stands between the quotes.
    pub(crate) text: &'a str,
    /// Where it begins, in bytes.
    pub(crate) at: usize,
    /// A name or keyword, in contrast to a sign.
    pub(crate) is_name: bool,
}

/// The words of a text, in order; strings in single quotes and comments are left out.
pub(crate) fn words(sql: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = sql.get(at..).filter(|rest| !rest.is_empty())?;
            let start = at;
            let first = rest.chars().next()?;
            match first {
                '\'' => at += quoted_len(rest, '\''),
                '"' | '`' => {
                    let len = quoted_len(rest, first);
                    at += len;
                    return Some(Word {
                        text: rest.get(1..len - 1).unwrap_or_default(),
                        at: start,
                        is_name: true,
                    });
                }
                '[' => {
                    let len = rest.find(']').map_or(rest.len(), |end| end + 1);
                    at += len;
                    return Some(Word {
                        text: rest.get(1..len - 1).unwrap_or_default(),
                        at: start,
                        is_name: true,
                    });
                }
                '-' if rest.starts_with("--") => at += rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => {
                    at += rest[2..].find("*/").map_or(rest.len(), |end| end + 4);
                }
                _ if is_letter(first) => {
                    let len = rest.find(|letter| !is_letter(letter)).unwrap_or(rest.len());
                    at += len;
                    return Some(Word {
                        text: &rest[..len],
                        at: start,
                        is_name: !first.is_ascii_digit(),
                    });
                }
                _ if first.is_whitespace() => at += first.len_utf8(),
                _ => {
                    at += first.len_utf8();
                    return Some(Word {
                        text: &rest[..first.len_utf8()],
                        at: start,
                        is_name: false,
                    });
                }
            }
        }
    })
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '$' || !letter.is_ascii()
}

/// How long a quoted text is, quotes included; a doubled quote stands for itself. One that never ends goes to the end.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((index, letter)) = letters.next() {
        if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return index + 1;
        }
    }
    text.len().max(2)
}

/// The one statement of a text without the semicolon that ends it; `None` when more than one stands there.
#[must_use]
pub fn statement(sql: &str) -> Option<&str> {
    let Some(end) = words(sql).find(|word| is_end(word)) else {
        return Some(sql);
    };
    let is_alone = words(sql)
        .skip_while(|word| word.at < end.at)
        .all(|word| is_end(&word));
    is_alone.then(|| &sql[..end.at])
}

/// Is there exactly one statement, not none?
#[must_use]
pub fn is_one_statement(sql: &str) -> bool {
    statement(sql).is_some_and(|one| words(one).next().is_some())
}

fn is_end(word: &Word<'_>) -> bool {
    !word.is_name && word.text == ";"
}

/// Where a second statement begins, in bytes.
pub(crate) fn second_statement(sql: &str) -> Option<usize> {
    words(sql)
        .skip_while(|word| !is_end(word))
        .find(|word| !is_end(word))
        .map(|word| word.at)
}

/// How deep brackets are nested.
pub(crate) fn depth(sql: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for word in words(sql).filter(|word| !word.is_name) {
        match word.text {
            "(" => open += 1,
            ")" => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        words(sql).map(|word| word.text).collect()
    }

    #[test]
    fn words_are_found_outside_of_strings_and_comments() {
        assert_eq!(
            texts("SELECT \"a b\", [c], `d` -- x; y\n/* ; */ FROM t2 WHERE e='f;''g' ;"),
            [
                "SELECT", "a b", ",", "c", ",", "d", "FROM", "t2", "WHERE", "e", "=", ";"
            ]
        );
    }

    #[test]
    fn texts_that_never_end_are_read_to_their_end() {
        for sql in [
            "'", "\"", "`", "[", "/*", "--", "'ab''", "\"ü", "/*/", "-", "é'", "",
        ] {
            assert!(texts(sql).len() <= 2, "{sql}");
        }
    }

    #[test]
    fn one_statement_may_end_with_semicolons_and_comments() {
        assert_eq!(statement("SELECT 1 ; ; -- done\n"), Some("SELECT 1 "));
        assert_eq!(statement("SELECT ';'"), Some("SELECT ';'"));
        assert_eq!(statement("SELECT 1; SELECT 2"), None);
        assert_eq!(second_statement("SELECT 1; SELECT 2"), Some(10));
        assert!(!is_one_statement(" -- nothing\n") && !is_one_statement(";"));
        assert_eq!(depth("((a)(b '(' ))"), 2);
    }
}
