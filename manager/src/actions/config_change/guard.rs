//! The cut-off guard's questions, and what a preview says.

use ostiary_domain::cut_off::{Care, Danger};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::rollout::Plan;
use sha2::{Digest as _, Sha256};

use super::Saving;
use super::sent::Sent;
use crate::error::{Error, FieldErrors};

/// Names of nodes that a preview says.
const NAMED: usize = 8;

/// The value of `cut_off` that a form of deletion sends.
const DELETION: &str = "deletion";

/// A danger as a sentence.
fn sentence(danger: &Danger) -> String {
    let old = danger.old.as_ref().map_or_else(
        || "what their flag file says".to_owned(),
        ToString::to_string,
    );
    let nodes = match danger.nodes {
        1 => "1 node".to_owned(),
        nodes => format!("{nodes} nodes"),
    };
    format!(
        "{}: {old} → {} on {nodes}. {}",
        danger.option, danger.new, danger.consequence
    )
}

/// Names what is to be confirmed, so that nothing else is confirmed by it. Not the number of nodes: those come and go.
fn digest(dangers: &[Danger]) -> String {
    let mut hash = Sha256::new();
    for danger in dangers {
        hash.update(format!(
            "{}\n{:?}\n{}\n",
            danger.option, danger.old, danger.new
        ));
    }
    hex::encode(&hash.finalize()[..8])
}

/// What must be typed, if confirming is not enough.
fn to_be_typed(dangers: &[Danger]) -> Option<&str> {
    dangers
        .iter()
        .find(|danger| danger.care == Care::Type)
        .map(|danger| danger.option.as_str())
}

/// Were these dangers confirmed? Who deletes something types its name anyway, and ticks that it may cut off.
pub(super) fn confirmed(
    saving: &Saving,
    dangers: &[Danger],
    is_deletion: bool,
) -> Result<(), Error> {
    if is_deletion && saving.confirmed == DELETION {
        return Ok(());
    }
    let must_type = to_be_typed(dangers);
    let is_confirmed = saving.confirmed == digest(dangers);
    if dangers.is_empty() || is_confirmed && must_type.is_none_or(|word| word == saving.typed) {
        return Ok(());
    }
    let mut errors = FieldErrors::default();
    ask(&mut errors, dangers);
    Err(Error::Invalid(errors))
}

/// What would happen.
pub(super) struct Preview<'a> {
    pub(super) plan: &'a Plan,
    /// The nodes that would get another config than they are sent now.
    pub(super) changed: Vec<NodeId>,
    /// Would the change join the roll-out that is under way?
    pub(super) joins: bool,
    pub(super) sent: &'a Sent,
    pub(super) nodes: &'a [(NodeId, NodeFacts)],
}

impl Preview<'_> {
    /// Says it.
    pub(super) fn say(&self, dangers: &[Danger]) -> Error {
        let mut text = self.who();
        text.push_str(&self.when());
        let mut errors = FieldErrors::one("preview", text);
        if !dangers.is_empty() {
            ask(&mut errors, dangers);
        }
        Error::Invalid(errors)
    }

    fn who(&self) -> String {
        let mut names: Vec<&str> = self
            .nodes
            .iter()
            .filter(|(id, _)| self.changed.contains(id))
            .map(|(_, facts)| facts.name.as_str())
            .take(NAMED + 1)
            .collect();
        names.sort_unstable();
        let more = if names.len() > NAMED { ", …" } else { "" };
        names.truncate(NAMED);
        match self.changed.len() {
            0 => format!(
                "None of the {} nodes would get another config.",
                self.nodes.len()
            ),
            count => format!(
                "{count} of {} nodes would get another config: {}{more}.",
                self.nodes.len(),
                names.join(", ")
            ),
        }
    }

    fn when(&self) -> String {
        if self.changed.is_empty() {
            return String::new();
        }
        if self.joins {
            let is_outside = |node: &&NodeId| self.sent.is_outside(**node);
            let later = self.changed.iter().filter(is_outside).count();
            return format!(
                " It joins the roll-out that is under way: {} of them are inside and get it at once, {later} as it goes on.",
                self.changed.len() - later
            );
        }
        if self.changed.len() == 1 {
            return String::new();
        }
        let counts = self.plan.shares().into_iter().map(|share| {
            let share = usize::try_from(share).unwrap_or(100);
            (self.changed.len() * share).div_ceil(100).to_string()
        });
        format!(
            " In stages it would be {} of them, if all check in.",
            counts.collect::<Vec<_>>().join(", then ")
        )
    }
}

/// Asks about dangers beside the form.
fn ask(errors: &mut FieldErrors, dangers: &[Danger]) {
    let sentences: Vec<String> = dangers.iter().map(sentence).collect();
    errors.add("cut_off", sentences.join("\n"));
    errors.add("cut_off_digest", digest(dangers));
    if let Some(word) = to_be_typed(dangers) {
        errors.add("cut_off_word", word);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn danger(option: &str, care: Care) -> Danger {
        Danger {
            option: option.into(),
            old: Some(json!(10)),
            new: json!("/x"),
            nodes: 3,
            consequence: "It is lost.",
            care,
        }
    }

    fn asked(saving: &Saving, dangers: &[Danger]) -> FieldErrors {
        confirmed(saving, dangers, false)
            .unwrap_err()
            .into_fields()
            .unwrap()
    }

    #[test]
    fn what_is_confirmed_is_exactly_what_was_shown() {
        let dangers = [danger("logger_tls_period", Care::Confirm)];
        let errors = asked(&Saving::default(), &dangers);
        assert_eq!(
            errors.0["cut_off"],
            "logger_tls_period: 10 → \"/x\" on 3 nodes. It is lost."
        );
        let mut saving = Saving {
            confirmed: errors.0["cut_off_digest"].clone(),
            ..Saving::default()
        };
        assert!(confirmed(&saving, &dangers, false).is_ok());
        let other = [danger("logger_tls_endpoint", Care::Confirm)];
        assert!(confirmed(&saving, &other, true).is_err());
        let worse = [danger("logger_tls_period", Care::Type)];
        let errors = asked(&saving, &worse);
        saving.confirmed.clone_from(&errors.0["cut_off_digest"]);
        assert!(confirmed(&saving, &worse, false).is_err());
        saving.typed.clone_from(&errors.0["cut_off_word"]);
        assert!(confirmed(&saving, &worse, false).is_ok());
        assert!(confirmed(&Saving::default(), &[], false).is_ok());
        saving.confirmed = DELETION.into();
        assert!(confirmed(&saving, &worse, false).is_err());
        assert!(confirmed(&saving, &worse, true).is_ok());
    }
}
