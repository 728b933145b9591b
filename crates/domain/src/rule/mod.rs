//! Rules: conditions over events, in the JSON of doorman (jQuery QueryBuilder), and how they are judged.
//!
//! Everything here is pure and type-safe. **A missing column is no match**, for negated operators too: `column_not_equal`
//! means "the column is there and differs". (Doorman took a missing column for different, and raised on most other
//! operators.) Only a group with `"not": true` inverts a *judgement*: it matches whenever its inside does not, for a
//! missing column as well.
//!
//! A rule that cannot be compiled is reported by [`RuleSet::compile`] and stops no other.

mod condition;
mod evaluate;
mod operator;
mod parse;
mod rule_set;
#[cfg(test)]
mod tests;

pub use condition::{Condition, FIELDS, Field, FieldInfo, Test};
pub use evaluate::EventView;
pub use operator::{COLUMN_PREFIX, Comparison, OPERATORS, Operand, Operator};
pub use parse::{ParseError, Trouble, parse};
pub use rule_set::{Broken, BrokenReason, Candidates, Match, Rule, RuleDefinition, RuleSet};
