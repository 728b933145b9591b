//! From doorman's rule JSON to conditions.
//!
//! The root is a group, `{"condition": "AND" | "OR", "rules": […], "not": false}`; a leaf is `{"field", "operator",
//! "value"}`, where `value` is a text or a number, a list of them for `in` and `in_network`, and `[column, value]` for a column,
//! `["<query>.<column>", value]` for a vital. Other keys (`id`, `type`, `input`, `valid`, …) belong to the form that wrote them and are ignored; the
//! stored JSON keeps them.

use serde_json::{Map, Value};

use super::{
    COLUMN_PREFIX, Comparison, Condition, FIELDS, Field, Operand, OperandError, Operator, Test,
    Wants,
};

/// Groups may be nested this deep.
const MAX_DEPTH: usize = 32;

/// Why a JSON is no rule, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}{trouble}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct ParseError {
    /// The way from the root to the faulty node, `rules[1].rules[0]`; empty for the root.
    pub path: String,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong with a node of a rule.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It is no JSON object.
    #[error("a group or a test was expected")]
    NotAnObject,
    /// The root has no `condition` or no `rules`.
    #[error("a group with \"condition\" and \"rules\" was expected")]
    NotAGroup,
    /// Nothing in it, so nothing to judge.
    #[error("a group contains no rules")]
    EmptyGroup,
    /// Neither AND nor OR.
    #[error("unknown condition {0:?}")]
    UnknownCondition(String),
    /// A `not` that is neither true nor false.
    #[error("\"not\" is neither true nor false")]
    OddNot,
    /// Groups in groups beyond reason.
    #[error("the groups are nested too deeply")]
    TooDeep,
    /// A test without this key, or with a value of another type.
    #[error("{0:?} is missing or not a text")]
    MissingKey(&'static str),
    /// A field that does not exist.
    #[error("unknown field {0:?}")]
    UnknownField(String),
    /// An operator that does not exist.
    #[error("unknown operator {0:?}")]
    UnknownOperator(String),
    /// An operator with a prefix for a plain field, or without for a column.
    #[error("the operator {operator:?} does not go with the field {field:?}")]
    WrongOperator {
        /// The operator.
        operator: String,
        /// The field.
        field: String,
    },
    /// A value that cannot be compared with.
    #[error("the value has to be a text or a number")]
    BadValue,
    /// The value of a test on a column is not `[column, expected]`.
    #[error("the value has to be a list of the column and what is expected of it")]
    BadColumnValue,
    /// The value of a test on a vital is not `["<query>.<column>", expected]`.
    #[error(
        "the value has to be a list of the vital (\"system_info.hardware_model\") and what is expected of it"
    )]
    BadVital,
    /// What is compared with does not go with the operator.
    #[error(transparent)]
    Operand(#[from] OperandError),
}

/// Reads the conditions of a rule.
///
/// # Errors
/// The JSON is no rule; the error says where and why.
pub fn parse(json: &Value) -> Result<Condition, ParseError> {
    let root = ParseError {
        path: String::new(),
        trouble: Trouble::NotAGroup,
    };
    match json.as_object() {
        Some(object) if is_group(object) => group(object, "", 0),
        _ => Err(root),
    }
}

fn is_group(object: &Map<String, Value>) -> bool {
    object.contains_key("rules") || object.contains_key("condition")
}

fn node(json: &Value, path: &str, depth: usize) -> Result<Condition, ParseError> {
    let at = |trouble| ParseError {
        path: path.to_owned(),
        trouble,
    };
    let object = json.as_object().ok_or_else(|| at(Trouble::NotAnObject))?;
    if is_group(object) {
        return group(object, path, depth);
    }
    test(object).map(Condition::Test).map_err(at)
}

fn group(object: &Map<String, Value>, path: &str, depth: usize) -> Result<Condition, ParseError> {
    let at = |trouble| ParseError {
        path: path.to_owned(),
        trouble,
    };
    if depth >= MAX_DEPTH {
        return Err(at(Trouble::TooDeep));
    }
    let Some(rules) = object.get("rules").and_then(Value::as_array) else {
        return Err(at(Trouble::NotAGroup));
    };
    if rules.is_empty() {
        return Err(at(Trouble::EmptyGroup));
    }
    let combine = match object.get("condition").and_then(Value::as_str) {
        Some("AND") => Condition::All,
        Some("OR") => Condition::Any,
        Some(other) => return Err(at(Trouble::UnknownCondition(other.to_owned()))),
        None => return Err(at(Trouble::MissingKey("condition"))),
    };
    let negated = match object.get("not") {
        None | Some(Value::Null) => false,
        Some(not) => not.as_bool().ok_or_else(|| at(Trouble::OddNot))?,
    };
    let dot = if path.is_empty() { "" } else { "." };
    let parts: Result<Vec<Condition>, ParseError> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| node(rule, &format!("{path}{dot}rules[{index}]"), depth + 1))
        .collect();
    let condition = combine(parts?);
    Ok(if negated {
        Condition::Not(Box::new(condition))
    } else {
        condition
    })
}

fn test(object: &Map<String, Value>) -> Result<Test, Trouble> {
    let text = |key| {
        object
            .get(key)
            .and_then(Value::as_str)
            .ok_or(Trouble::MissingKey(key))
    };
    let (field_name, operator_name) = (text("field")?, text("operator")?);
    let bare_name = operator_name.strip_prefix(COLUMN_PREFIX);
    let operator = Operator::find(bare_name.unwrap_or(operator_name))
        .ok_or_else(|| Trouble::UnknownOperator(operator_name.to_owned()))?;
    if !is_field(field_name) {
        return Err(Trouble::UnknownField(field_name.to_owned()));
    }
    if !goes_with(field_name, operator, bare_name.is_some()) {
        return Err(Trouble::WrongOperator {
            operator: operator_name.to_owned(),
            field: field_name.to_owned(),
        });
    }
    let value = object.get("value");
    let (field, expected) = match field_name {
        "column" => {
            let (column, expected) =
                named_and_expected(value, operator).ok_or(Trouble::BadColumnValue)?;
            (Field::Column(column.to_owned()), expected)
        }
        "vital" => {
            let (vital, expected) = named_and_expected(value, operator).ok_or(Trouble::BadVital)?;
            let (query, column) = vital
                .split_once('.')
                .filter(|(query, column)| !query.is_empty() && !column.is_empty())
                .ok_or(Trouble::BadVital)?;
            let (query, column) = (query.to_owned(), column.to_owned());
            (Field::Vital { query, column }, expected)
        }
        _ => (field_of(field_name), value),
    };
    let texts = expected_texts(expected, operator)?;
    let operand = Operand::new(texts, operator.comparison, field.is_of_any_case())?;
    Ok(Test {
        field,
        operator,
        operand,
    })
}

fn is_field(name: &str) -> bool {
    name == "node" || FIELDS.iter().any(|field| field.name == name)
}

fn goes_with(field_name: &str, operator: &Operator, has_prefix: bool) -> bool {
    let asks_for_target = operator.comparison == Comparison::Target;
    (field_name == "column") == has_prefix && (field_name == "target") == asks_for_target
}

fn field_of(name: &str) -> Field {
    match name {
        "query_name" => Field::QueryName,
        "action" => Field::Action,
        "timestamp" => Field::Timestamp,
        "host_name" => Field::HostName,
        "platform" => Field::Platform,
        "osquery_version" => Field::OsqueryVersion,
        "tag" => Field::Tag,
        "target" => Field::Target,
        _ => Field::HostIdentifier,
    }
}

/// `[name, expected]`, or for an operator without a value just the name, alone or in a list.
fn named_and_expected<'v>(
    value: Option<&'v Value>,
    operator: &Operator,
) -> Option<(&'v str, Option<&'v Value>)> {
    let (name, expected) = match value {
        Some(Value::Array(pair)) => (pair.first(), pair.get(1)),
        other => (other, None),
    };
    let name = name?.as_str().filter(|name| !name.is_empty())?;
    if operator.takes_value() && expected.is_none() {
        return None;
    }
    Some((name, expected))
}

fn expected_texts(value: Option<&Value>, operator: &Operator) -> Result<Vec<String>, Trouble> {
    match (operator.wants(), value) {
        (Wants::Nothing, _) => Ok(Vec::new()),
        (Wants::List | Wants::Networks, Some(Value::Array(values))) => {
            values.iter().map(|value| text_of(Some(value))).collect()
        }
        _ => Ok(vec![text_of(value)?]),
    }
}

fn text_of(value: Option<&Value>) -> Result<String, Trouble> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(flag)) => Ok(flag.to_string()),
        _ => Err(Trouble::BadValue),
    }
}
