//! The template environment: strict, escaping, with the filters that `templates/README.md` promises.
//!
//! Debug builds read templates from disk at each rendering, so that an edit shows at once; release builds carry them.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use ostiary_boot::clock::Clock;
use rust_embed::RustEmbed;
use serde_json::Map;

use crate::assets;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../templates"]
struct Templates;

/// What a template is filled with.
pub type Context = Map<String, serde_json::Value>;

/// Renders pages.
pub struct Views {
    clock: Arc<dyn Clock>,
    kept: Option<Environment<'static>>,
}

impl Views {
    /// Prepares the environment.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let kept = (!cfg!(debug_assertions)).then(|| environment(Arc::clone(&clock)));
        Self { clock, kept }
    }

    /// Renders a template by its path below `templates/`.
    ///
    /// # Errors
    /// The template is missing or broken, or names something that the context lacks.
    pub fn render(&self, template: &str, context: &Context) -> Result<String, Error> {
        match &self.kept {
            Some(environment) => environment
                .get_template(template)?
                .render(Value::from(Serde(context))),
            None => environment(Arc::clone(&self.clock))
                .get_template(template)?
                .render(Value::from(Serde(context))),
        }
    }

    /// Compiles every template; returns how many there are.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&self) -> Result<usize, Error> {
        let environment = environment(Arc::clone(&self.clock));
        let mut count = 0;
        for name in Templates::iter().filter(|name| name.ends_with(".html")) {
            environment.get_template(&name)?;
            count += 1;
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").finish_non_exhaustive()
    }
}

fn environment(clock: Arc<dyn Clock>) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    // A template that loops for ever must not take a thread with it.
    env.set_fuel(Some(20_000_000));
    env.set_loader(
        |name| match Templates::get(name).filter(|_| name.ends_with(".html")) {
            Some(file) => String::from_utf8(file.data.into_owned())
                .map(Some)
                .map_err(|_| Error::new(ErrorKind::BadSerialization, "the template is no UTF-8")),
            None => Ok(None),
        },
    );
    minijinja_contrib::add_to_environment(&mut env);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("asset", |name: &str| assets::url(name));
    env.add_filter("relative", move |time: Value| {
        moment(&time).map(|time| relative(time, clock.now()))
    });
    env.add_filter("absolute", |time: Value| {
        moment(&time).map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
    });
    env.add_filter("number", |number: i64| grouped(number));
    env.add_filter("bytes", |bytes: i64| in_bytes(bytes));
    env.add_filter("duration", |seconds: i64| duration(seconds));
    env.add_filter("short", |text: Value, length: usize| {
        short(&text.to_string(), length)
    });
    env.add_filter("json_pretty", json_pretty);
    env.add_filter("sparkline", |values: Vec<i64>, width: f64, height: f64| {
        sparkline(&values, width, height)
    });
    env
}

fn moment(time: &Value) -> Result<DateTime<Utc>, Error> {
    time.as_str()
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
        .map(|time| time.with_timezone(&Utc))
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{time:?} is no time")))
}

fn relative(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let distance = now - time;
    let words =
        |count: i64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    let size = distance.abs();
    let text = match size {
        _ if size < TimeDelta::seconds(10) => return "just now".to_owned(),
        _ if size < TimeDelta::minutes(1) => words(size.num_seconds(), "second"),
        _ if size < TimeDelta::hours(1) => words(size.num_minutes(), "minute"),
        _ if size < TimeDelta::days(1) => words(size.num_hours(), "hour"),
        _ if size < TimeDelta::days(60) => words(size.num_days(), "day"),
        _ if size < TimeDelta::days(730) => words(size.num_days() / 30, "month"),
        _ => words(size.num_days() / 365, "year"),
    };
    if distance < TimeDelta::zero() {
        format!("in {text}")
    } else {
        format!("{text} ago")
    }
}

fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn in_bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes.abs() < 1000 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size.abs() >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

fn duration(seconds: i64) -> String {
    let (days, hours, minutes, rest) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")];
    let said: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .take(2)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if said.is_empty() {
        "0 s".to_owned()
    } else {
        said.join(" ")
    }
}

/// At most `length` characters, the last being `…` when something was cut.
#[must_use]
pub fn short(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars()
        .take(length.saturating_sub(1))
        .chain(['…'])
        .collect()
}

fn json_pretty(value: &Value) -> String {
    let json = match value.as_str() {
        Some(text) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(json) => json,
            Err(_) => return text.to_owned(),
        },
        None if value.kind() == ValueKind::Undefined => return String::new(),
        None => serde_json::to_value(value).unwrap_or_default(),
    };
    serde_json::to_string_pretty(&json).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "points of a small drawing")]
fn sparkline(values: &[i64], width: f64, height: f64) -> String {
    let top = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    let step = width / values.len().saturating_sub(1).max(1) as f64;
    let point = |(index, value): (usize, &i64)| {
        format!(
            "{:.1},{:.1}",
            index as f64 * step,
            height - *value as f64 / top * height
        )
    };
    values
        .iter()
        .enumerate()
        .map(point)
        .collect::<Vec<_>>()
        .join(" ")
}

/// For a query string: everything but unreserved characters as `%XX`.
#[must_use]
pub fn urlencode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_said_as_people_do() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(
            (in_bytes(999), in_bytes(1_200_000), in_bytes(999_999)),
            ("999 B".into(), "1.2 MB".into(), "1.0 MB".into())
        );
        assert_eq!(
            (duration(0), duration(300), duration(93_784)),
            ("0 s".into(), "5 min".into(), "1 d 2 h".into())
        );
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(relative(now - TimeDelta::seconds(3), now), "just now");
        assert_eq!(relative(now - TimeDelta::minutes(1), now), "1 minute ago");
        assert_eq!(relative(now + TimeDelta::days(2), now), "in 2 days");
        assert_eq!(
            (short("äöü", 3), short("äöüß", 3)),
            ("äöü".into(), "äö…".into())
        );
        assert_eq!(
            sparkline(&[0, 5, 10], 100.0, 20.0),
            "0.0,20.0 50.0,10.0 100.0,0.0"
        );
        assert_eq!(sparkline(&[], 100.0, 20.0), "");
        assert_eq!(urlencode("/a b?ü"), "%2Fa%20b%3F%C3%BC");
    }

    #[test]
    fn every_template_compiles() {
        let clock = ostiary_domain::clock::TestClock::at(DateTime::UNIX_EPOCH);
        assert!(Views::new(Arc::new(clock)).check().unwrap() > 40);
    }
}
