//! Rules: conditions over events, in the JSON of doorman (jQuery QueryBuilder), and how they are judged.
//!
//! Everything here is pure and type-safe. **A missing column is no match**, for negated operators too: `column_not_equal`
//! means "the column is there and differs". So is a value that does not compare: what is no address is neither in a network nor outside
//! it. (Doorman took a missing column for different, and raised on most other operators.) Only a group with `"not": true` inverts a
//! *judgement*: it matches whenever its inside does not, for a missing column as well.
//!
//! A rule that cannot be compiled is reported by [`RuleSet::compile`] and stops no other. What a rule waits for is its [`Watch`].

mod condition;
mod evaluate;
mod index;
mod moment;
mod number;
mod operand;
mod operator;
mod parse;
mod pattern;
#[cfg(test)]
mod reference;
pub mod rehearsal;
mod rule_set;
#[cfg(test)]
mod tests;
mod version;
mod watch;

pub use condition::{Condition, FIELDS, Field, FieldInfo, Test};
pub use evaluate::{EventView, NodeView};
pub use operand::{Operand, OperandError};
pub use operator::{COLUMN_PREFIX, Comparison, OPERATORS, Operator, Wants};
pub use parse::{ParseError, Trouble, parse};
pub use pattern::{PatternError, read_otherwise_by_python};
pub use rule_set::{
    Broken, BrokenReason, Candidates, Effect, Match, Rule, RuleDefinition, RuleSet, entity_of,
};
pub use watch::{COUNTED_NODES, LONGEST_SPAN, WATCHES, Watch, WatchError, WatchInfo};
