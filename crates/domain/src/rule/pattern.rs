//! Patterns of rules: Rust's regular expressions, which take linear time whatever the text, and what Python's `re` (Doorman's) means by
//! them otherwise. What cannot be carried over is named with the part that is at fault, never guessed.

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, AssertionKind, Ast, ErrorKind, Visitor};

/// Compiled size in bytes beyond which a pattern is refused: rules are many and live in memory.
const SIZE_LIMIT: usize = 1 << 20;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A part of it is understood by backtracking engines only, or by none.
    #[error("{what}: {part:?} at character {position}")]
    Part {
        /// What is wrong with the part.
        what: String,
        /// The part, as it stands in the pattern.
        part: String,
        /// Where it begins, counted from 1.
        position: usize,
    },
    /// It would take too much memory.
    #[error("it becomes too big when it is compiled")]
    TooBig,
    /// It is understood, but not as a part of a larger pattern.
    #[error("it cannot stand inside brackets")]
    NotInBrackets,
}

/// Compiles a pattern; it matches from the start of the text on, as Python's `re.match`.
pub(super) fn compile(pattern: &str, any_case: bool) -> Result<Regex, PatternError> {
    parse(pattern)?;
    RegexBuilder::new(&format!(r"\A(?:{pattern})"))
        .size_limit(SIZE_LIMIT)
        .case_insensitive(any_case)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooBig,
            _ => hir_error(pattern),
        })
}

/// Parts of a pattern that Python's `re` understands otherwise than we do, each with what it means here.
///
/// # Errors
/// The pattern is none.
pub fn read_otherwise_by_python(pattern: &str) -> Result<Vec<String>, PatternError> {
    let ast = parse(pattern)?;
    Ok(ast::visit(
        &ast,
        Differences {
            pattern,
            found: Vec::new(),
        },
    )
    .unwrap_or_default())
}

fn parse(pattern: &str) -> Result<Ast, PatternError> {
    ast::parse::Parser::new()
        .parse(pattern)
        .map_err(|error| fault(pattern, &error))
}

fn fault(pattern: &str, error: &ast::Error) -> PatternError {
    let start = error.span().start.offset;
    let mut part = pattern
        .get(start..error.span().end.offset)
        .unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UnsupportedLookAround => {
            part = group_from(pattern, start);
            "look-around is not available, for patterns take linear time".to_owned()
        }
        ErrorKind::UnsupportedBackreference => {
            "backreferences are not available, for patterns take linear time".to_owned()
        }
        kind => kind.to_string(),
    };
    PatternError::Part {
        what,
        part: part.to_owned(),
        position: pattern.get(..start).unwrap_or_default().chars().count() + 1,
    }
}

/// What the parser accepts and the translation refuses: a Unicode class that does not exist, for one.
fn hir_error(pattern: &str) -> PatternError {
    match regex_syntax::Parser::new().parse(pattern) {
        Err(regex_syntax::Error::Translate(error)) => {
            let (start, end) = (error.span().start.offset, error.span().end.offset);
            PatternError::Part {
                what: error.kind().to_string(),
                part: pattern.get(start..end).unwrap_or_default().to_owned(),
                position: pattern.get(..start).unwrap_or_default().chars().count() + 1,
            }
        }
        _ => PatternError::NotInBrackets,
    }
}

/// The group that begins here, to the bracket that closes it.
fn group_from(pattern: &str, start: usize) -> &str {
    let rest = pattern.get(start..).unwrap_or_default();
    let (mut depth, mut escaped) = (0_u32, false);
    for (index, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &rest[..=index];
                }
            }
            _ => {}
        }
    }
    rest
}

struct Differences<'p> {
    pattern: &'p str,
    found: Vec<String>,
}

impl Differences<'_> {
    fn note(&mut self, span: &ast::Span, meaning: &str) {
        let part = self
            .pattern
            .get(span.start.offset..span.end.offset)
            .unwrap_or_default();
        self.found.push(format!("{part:?} {meaning}"));
    }
}

impl Visitor for Differences<'_> {
    type Output = Vec<String>;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Vec<String>, Self::Err> {
        Ok(self.found)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::Assertion(assertion) => {
                if let AssertionKind::WordBoundaryStartAngle | AssertionKind::WordBoundaryEndAngle =
                    assertion.kind
                {
                    self.note(
                        &assertion.span,
                        "is the edge of a word here, and the character itself in Python",
                    );
                }
            }
            Ast::Repetition(outer) => {
                if let Ast::Repetition(inner) = outer.ast.as_ref()
                    && inner.span.start == outer.span.start
                {
                    self.note(&outer.span, "is a repetition of a repetition here, and possessive or an error in Python");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), Self::Err> {
        if let ast::ClassSetItem::Bracketed(class) = item {
            self.note(
                &class.span,
                "is a class inside a class here, and single characters in Python",
            );
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(
        &mut self,
        operation: &ast::ClassSetBinaryOp,
    ) -> Result<(), Self::Err> {
        self.note(
            &operation.span,
            "is an operation on classes here, and single characters in Python",
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linear_time_cannot_do_is_named_with_the_part() {
        let cases = [
            (
                "^/tmp/(?!cache(/x)?)a",
                r#"look-around is not available, for patterns take linear time: "(?!cache(/x)?)" at character 7"#,
            ),
            (
                r"é(?<=\)b)c",
                r#"look-around is not available, for patterns take linear time: "(?<=\\)b)" at character 2"#,
            ),
            (
                r"(a)\1",
                r#"backreferences are not available, for patterns take linear time: "\\1" at character 4"#,
            ),
            (
                r"a\Z",
                r#"unrecognized escape sequence: "\\Z" at character 2"#,
            ),
            ("(", r#"unclosed group: "(" at character 1"#),
            (
                r"x\p{Klingon}",
                r#"Unicode property not found: "\\p{Klingon}" at character 2"#,
            ),
        ];
        for (pattern, expected) in cases {
            assert_eq!(
                compile(pattern, false).unwrap_err().to_string(),
                expected,
                "{pattern}"
            );
        }
        assert_eq!(
            compile(r"(\w{100}){100}", false).unwrap_err(),
            PatternError::TooBig
        );
        assert_eq!(
            compile("(?x)a # why", false).unwrap_err(),
            PatternError::NotInBrackets
        );
    }

    #[test]
    fn what_python_reads_otherwise_is_told() {
        for pattern in ["[a&&b]", "[[a]", r"\<word", "a++", "[a[b]]"] {
            let said = read_otherwise_by_python(pattern);
            assert!(
                said.as_ref().is_err() || !said.unwrap().is_empty(),
                "{pattern}"
            );
        }
        for pattern in [
            "^/tmp/.*[.]sh$",
            r"(?i)evil\b",
            "(a+)+",
            "a+?",
            r"(?P<name>x)|[^/]{2,5}",
        ] {
            assert_eq!(
                read_otherwise_by_python(pattern),
                Ok(Vec::new()),
                "{pattern}"
            );
        }
    }
}
