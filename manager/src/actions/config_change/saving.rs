//! How a change is to be saved: what the part of the form that all config forms share says.

use serde_json::{Value, json};

use crate::state::App;

/// What stands in the fields `saving`, `preview`, `cut_off` and `cut_off_typed` of a config form.
#[derive(Debug, Clone, Default)]
pub struct Saving {
    /// `once` or `stages`; anything else is what the settings say.
    pub how: String,
    /// Only say what would happen.
    pub preview: bool,
    /// The dangers that were confirmed, as `errors.cut_off_digest` named them.
    pub confirmed: String,
    /// What was typed to confirm what is worse.
    pub typed: String,
}

impl Saving {
    /// To all nodes at once.
    #[must_use]
    pub fn at_once() -> Self {
        Self {
            how: "once".to_owned(),
            ..Self::default()
        }
    }

    /// Reads the fields of a form.
    pub fn read<'f>(field: impl Fn(&str) -> &'f str) -> Self {
        Self {
            how: field("saving").to_owned(),
            preview: !field("preview").is_empty(),
            confirmed: field("cut_off").to_owned(),
            typed: field("cut_off_typed").trim().to_owned(),
        }
    }

    /// The context of a form that is shown again, with what was chosen here.
    #[must_use]
    pub(crate) fn kept_in(&self, mut context: Value) -> Value {
        context["saving"] = json!({"how": self.how, "typed": self.typed});
        context
    }

    /// Is it to go out in stages?
    #[must_use]
    pub fn in_stages(&self, app: &App) -> bool {
        match self.how.as_str() {
            "stages" => true,
            "once" => false,
            _ => app.settings.rollouts.save_in_stages,
        }
    }
}
