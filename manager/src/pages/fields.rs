//! What a form sent, before anybody makes sense of it.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};

use crate::actions::config_change::Saving;
use crate::error::Error;

/// The fields of a posted form, in order. A field that was not sent reads as empty, a check box as off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a body of `application/x-www-form-urlencoded`. What cannot be read is no field.
    #[must_use]
    pub(crate) fn parse(body: &[u8]) -> Self {
        let pairs = body
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let at = pair
                    .iter()
                    .position(|byte| *byte == b'=')
                    .unwrap_or(pair.len());
                (
                    decode(&pair[..at]),
                    decode(pair.get(at + 1..).unwrap_or_default()),
                )
            });
        Self(pairs.collect())
    }

    /// The first value of a field.
    #[must_use]
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }

    /// The first value of a field, owned.
    #[must_use]
    pub(crate) fn owned(&self, name: &str) -> String {
        self.text(name).to_owned()
    }

    /// All values of a field that may come more than once.
    #[must_use]
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Is the check box on?
    #[must_use]
    pub(crate) fn is_on(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// How a change of configs is to be saved.
    #[must_use]
    pub(crate) fn saving(&self) -> Saving {
        Saving::read(|name| self.text(name))
    }

    /// All fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Undoes the encoding of forms (URL standard, "application/x-www-form-urlencoded parsing"): a wrong escape stands for itself, wrong
/// UTF-8 is replaced.
fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| {
                let digits = std::str::from_utf8(digits)
                    .ok()
                    .filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()
            });
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| Error::Refused(error.body_text()))?;
        Ok(Self::parse(&body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_a_browser_writes_them() {
        let fields =
            Fields::parse(b"name=a+b%26c&tag=x&tag=y&&enabled=on&odd&bad=%FF&x=%zz%4&y=a%3Db=c");
        assert_eq!(fields.text("name"), "a b&c");
        assert_eq!(fields.all("tag"), ["x", "y"]);
        assert!(fields.is_on("enabled") && !fields.is_on("missing"));
        assert_eq!(
            (
                fields.text("missing"),
                fields.text("odd"),
                fields.text("bad")
            ),
            ("", "", "\u{fffd}")
        );
        assert_eq!((fields.text("x"), fields.text("y")), ("%zz%4", "a=b=c"));
    }
}
