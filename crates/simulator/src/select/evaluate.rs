//! A SELECT answered from the rows of its tables.

use std::collections::HashSet;

use super::condition::{Scoped, holds, lookup, operand};
use super::read::{Token, position, split, tokens};
use crate::value::{Row, Value};

/// Gives the rows of a table, or SQLite's message.
pub type Source<'a> = dyn Fn(&str) -> Result<Vec<Row>, String> + 'a;

struct Joined {
    rows: Vec<Scoped>,
    columns: HashSet<String>,
    /// Whether the columns of every table are known (a table without rows does not tell).
    complete: bool,
}

/// Answers the first statement of `sql`.
///
/// # Errors
/// SQLite's message for a missing table or column, or for what is no SELECT at all.
pub fn select(sql: &str, source: &Source<'_>) -> Result<Vec<Row>, String> {
    let all = tokens(sql);
    let tokens = split(&all, |token| *token == Token::Sign(";"))[0];
    match tokens.first() {
        Some(first) if first.is("select") => {}
        Some(first) if first.is("pragma") || first.is("with") || first.is("explain") => {
            return Ok(Vec::new());
        }
        Some(first) => return Err(format!("near \"{}\": syntax error", first.raw())),
        None => return Err("not an error".to_owned()),
    }
    let mut body = &tokens[1..];
    let distinct = body.first().is_some_and(|token| token.is("distinct"));
    if distinct || body.first().is_some_and(|token| token.is("all")) {
        body = &body[1..];
    }
    let (items, from) = match position(body, &["from"]) {
        Some(at) => (&body[..at], &body[at + 1..]),
        None => (body, &body[..0]),
    };
    let tail = position(
        from,
        &["where", "group", "order", "limit", "union", "having"],
    )
    .unwrap_or(from.len());
    let mut joined = join(&from[..tail], source)?;
    if let Some(at) = position(from, &["where"]) {
        let end = position(&from[at..], &["group", "order", "limit", "union", "having"])
            .map_or(from.len(), |n| at + n);
        let condition = &from[at + 1..end];
        joined.rows.retain(|row| holds(condition, row));
    }
    if let Some(at) = position(from, &["limit"])
        && let Some(Token::Number(limit)) = from.get(at + 1)
    {
        joined.rows.truncate(limit.parse().unwrap_or(usize::MAX));
    }
    let mut rows = project(items, &joined)?;
    if distinct {
        let mut seen = HashSet::new();
        rows.retain(|row| seen.insert(format!("{row:?}")));
    }
    Ok(rows)
}

fn join(from: &[Token], source: &Source<'_>) -> Result<Joined, String> {
    let mut joined = Joined {
        rows: vec![Vec::new()],
        columns: HashSet::new(),
        complete: true,
    };
    let mut rest = from;
    let mut left = false;
    while !rest.is_empty() {
        let next = rest
            .iter()
            .skip(1)
            .position(|t| t.is("join") || *t == Token::Sign(","))
            .map(|n| n + 1);
        let mut clause = &rest[..next.unwrap_or(rest.len())];
        rest = next.map_or(&[][..], |at| &rest[at..]);
        // The word LEFT stands at the end of the clause before its JOIN.
        let next_is_left = clause.iter().rev().take(2).any(|token| token.is("left"));
        if clause
            .first()
            .is_some_and(|t| t.is("join") || *t == Token::Sign(","))
        {
            clause = &clause[1..];
        }
        let Some(table) = clause.first().and_then(Token::name) else {
            // A subselect: nothing is known of it.
            return Ok(Joined {
                rows: Vec::new(),
                columns: HashSet::new(),
                complete: false,
            });
        };
        let after = clause.get(1).is_some_and(|t| t.is("as"));
        let alias = clause
            .get(if after { 2 } else { 1 })
            .filter(|t| {
                !["on", "using", "left", "inner", "cross", "natural", "outer"]
                    .iter()
                    .any(|word| t.is(word))
            })
            .and_then(Token::name)
            .unwrap_or(table)
            .to_lowercase();
        let right = source(&table.to_lowercase())?;
        match right.first() {
            Some(first) => joined
                .columns
                .extend(first.iter().map(|(name, _)| name.to_lowercase())),
            None => joined.complete = false,
        }
        let using = position(clause, &["using"]).map(|at| {
            clause[at + 1..]
                .iter()
                .take_while(|t| **t != Token::Sign(")"))
                .filter_map(Token::name)
                .collect::<Vec<_>>()
        });
        let on = position(clause, &["on"]).map(|at| {
            let end = position(&clause[at..], &["left", "inner", "cross"])
                .map_or(clause.len(), |n| at + n);
            &clause[at + 1..end]
        });
        joined.rows = combine(&joined.rows, &alias, &right, using.as_deref(), on, left);
        left = next_is_left;
    }
    Ok(joined)
}

fn combine(
    left_rows: &[Scoped],
    alias: &str,
    right_rows: &[Row],
    using: Option<&[&str]>,
    on: Option<&[Token]>,
    keep_left: bool,
) -> Vec<Scoped> {
    let mut rows = Vec::new();
    for left in left_rows {
        let before = rows.len();
        for right in right_rows {
            let same = using.is_none_or(|columns| {
                columns.iter().all(|column| {
                    let there = right
                        .iter()
                        .find(|(name, _)| name.eq_ignore_ascii_case(column))
                        .map(|(_, v)| v.text());
                    lookup(left, None, column).map(|v| v.text()) == there
                })
            });
            if !same {
                continue;
            }
            let mut row = left.clone();
            row.extend(
                right
                    .iter()
                    .map(|(name, value)| (alias.to_owned(), name.clone(), value.clone())),
            );
            if on.is_none_or(|condition| holds(condition, &row)) {
                rows.push(row);
            }
        }
        if keep_left && rows.len() == before {
            rows.push(left.clone());
        }
    }
    rows
}

fn project(items: &[Token], joined: &Joined) -> Result<Vec<Row>, String> {
    let items: Vec<Item<'_>> = split(items, |token| *token == Token::Sign(","))
        .into_iter()
        .map(Item::of)
        .collect();
    if items.iter().any(|item| {
        item.expression
            .first()
            .is_some_and(|token| token.is("count"))
    }) {
        let row = items
            .iter()
            .map(|item| (item.name.clone(), item.aggregate(joined)))
            .collect();
        return Ok(vec![row]);
    }
    for item in &items {
        if let [.., column] = item.expression
            && item.is_column()
            && let Some(name) = column.name()
            && joined.complete
            && !matches!(column, Token::Quoted(_))
            && !joined.columns.contains(&name.to_lowercase())
        {
            return Err(format!("no such column: {}", item.raw()));
        }
    }
    Ok(joined
        .rows
        .iter()
        .map(|row| items.iter().flat_map(|item| item.values(row)).collect())
        .collect())
}

struct Item<'t> {
    expression: &'t [Token],
    name: String,
}

impl<'t> Item<'t> {
    fn of(tokens: &'t [Token]) -> Item<'t> {
        let (expression, name) = match tokens {
            [expression @ .., keyword, name] if keyword.is("as") && !expression.is_empty() => (
                expression,
                name.name().map_or_else(|| name.raw(), str::to_owned),
            ),
            [expression @ .., name] if implicit_alias(expression, name) => (expression, name.raw()),
            [.., Token::Sign("."), column] => (tokens, column.raw()),
            _ => (tokens, tokens.iter().map(Token::raw).collect()),
        };
        Item { expression, name }
    }

    fn raw(&self) -> String {
        self.expression.iter().map(Token::raw).collect()
    }

    fn is_column(&self) -> bool {
        matches!(
            self.expression,
            [Token::Word(_)] | [_, Token::Sign("."), Token::Word(_)]
        ) && !self.expression[0].is("null")
    }

    fn aggregate(&self, joined: &Joined) -> Value {
        if self
            .expression
            .first()
            .is_some_and(|token| token.is("count"))
        {
            return joined.rows.len().into();
        }
        joined
            .rows
            .first()
            .and_then(|row| operand(self.expression, row))
            .unwrap_or_else(|| "".into())
    }

    fn values(&self, row: &Scoped) -> Row {
        match self.expression {
            [Token::Sign("*")] => row
                .iter()
                .map(|(_, name, value)| (name.clone(), value.clone()))
                .collect(),
            [table, Token::Sign("."), Token::Sign("*")] => row
                .iter()
                .filter(|(alias, _, _)| {
                    table
                        .name()
                        .is_some_and(|name| alias.eq_ignore_ascii_case(name))
                })
                .map(|(_, name, value)| (name.clone(), value.clone()))
                .collect(),
            expression => vec![(
                self.name.clone(),
                operand(expression, row).unwrap_or_else(|| "".into()),
            )],
        }
    }
}

/// `expr name` without AS: the last word names the column if what stands before it can end an expression.
fn implicit_alias(expression: &[Token], name: &Token) -> bool {
    matches!(name, Token::Word(_) | Token::Quoted(_))
        && !name.is("end")
        && matches!(
            expression.last(),
            Some(
                Token::Word(_)
                    | Token::Quoted(_)
                    | Token::Text(_)
                    | Token::Number(_)
                    | Token::Sign(")")
            )
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::row;

    fn source(table: &str) -> Result<Vec<Row>, String> {
        match table {
            "users" => Ok(vec![
                row! {"uid" => 0_i64, "username" => "root"},
                row! {"uid" => 1000_i64, "username" => "ada"},
            ]),
            "chrome_extensions" => Ok(vec![
                row! {"uid" => 1000_i64, "name" => "Notes", "identifier" => "abc"},
            ]),
            "carves" => Ok(Vec::new()),
            other => Err(format!("no such table: {other}")),
        }
    }

    fn answer(sql: &str) -> String {
        match select(sql, &source) {
            Ok(rows) => rows
                .iter()
                .map(|row| {
                    row.iter()
                        .map(|(n, v)| format!("{n}={}", v.text()))
                        .collect::<Vec<_>>()
                        .join(",")
                })
                .collect::<Vec<_>>()
                .join(";"),
            Err(error) => error,
        }
    }

    #[test]
    fn selects_are_answered() {
        for (sql, expected) in [
            (
                "SELECT * FROM users;",
                "uid=0,username=root;uid=1000,username=ada",
            ),
            (
                "select username as name from users u where u.uid = '1000'",
                "name=ada",
            ),
            (
                "select username from users where username LIKE 'r%' and uid < 5",
                "username=root",
            ),
            ("select username who from users limit 1", "who=root"),
            ("select 1", "1=1"),
            ("SELECT 'x' AS y FROM users", "y=x;y=x"),
            ("select count(*) as n from users", "n=2"),
            (
                "SELECT u.username, ce.* FROM users u CROSS JOIN chrome_extensions ce USING (uid)",
                "username=ada,uid=1000,name=Notes,identifier=abc",
            ),
            (
                "SELECT username, name FROM users AS u LEFT JOIN chrome_extensions c ON u.uid = c.uid",
                "username=root,name=;username=ada,name=Notes",
            ),
            (
                "select username, name from users, chrome_extensions c where users.uid=c.uid",
                "username=ada,name=Notes",
            ),
            ("select * from foo", "no such table: foo"),
            ("select bar from users", "no such column: bar"),
            ("select anything from carves", ""),
            ("drop table users", "near \"drop\": syntax error"),
        ] {
            assert_eq!(answer(sql), expected, "{sql}");
        }
    }

    #[test]
    fn hostile_sql_does_no_harm() {
        for sql in [
            "",
            "select",
            "select ,",
            "select * from",
            "select 'é",
            "select (((",
            "\u{1F600}",
            "select * from users where",
        ] {
            let _ = select(sql, &source);
        }
    }
}
