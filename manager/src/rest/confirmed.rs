//! What a deletion asks for.

use serde::Deserialize;

/// The body of a deletion that is to be meant: the name of what goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmed {
    /// Typed once more.
    pub(crate) confirm: String,
}
