//! The starter set: rules that most fleets want, each with the pack that its queries need. None is there until somebody chooses it.

use ostiary_store::rule_edits::RuleRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config_change::Saving;
use super::config_import::{self, Import, ImportDraft, UploadedFile};
use super::rules::{self, RuleDraft};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

macro_rules! starters {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../deploy/starter/", $name, ".json")))),+]
    };
}

/// Their files, by the names of their packs.
const STARTERS: [(&str, &str); 7] = starters![
    "starter-browser-extensions",
    "starter-protections",
    "starter-root-certificates",
    "starter-launch-items",
    "starter-listeners",
    "starter-removable-media",
    "starter-kernel-extensions",
];

/// A file of the set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Starter {
    rule: StarterRule,
    /// A pack in osquery's format.
    pack: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StarterRule {
    name: String,
    severity: String,
    description: String,
    conditions: Value,
    #[serde(default)]
    entity_columns: Vec<String>,
    #[serde(default)]
    watch: Option<String>,
    #[serde(default)]
    watch_count: Option<u32>,
}

/// A rule of the set, as a page offers it.
#[derive(Debug, Serialize)]
pub struct Offer {
    /// What to choose it by.
    pub id: &'static str,
    /// The rule's name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its severity.
    pub severity: String,
    /// There is a rule of this name.
    pub is_there: bool,
}

fn read(text: &str) -> Starter {
    serde_json::from_str(text).expect("a test reads all files of the set")
}

/// The set, with what is there already.
#[must_use]
pub fn list(known: &[RuleRecord]) -> Vec<Offer> {
    STARTERS
        .iter()
        .map(|(id, text)| {
            let rule = read(text).rule;
            Offer {
                id,
                is_there: known.iter().any(|known| known.name == rule.name),
                name: rule.name,
                description: rule.description,
                severity: rule.severity,
            }
        })
        .collect()
}

/// Makes a rule of the set, switched on, and its pack for every node, unless there is a pack of that name.
///
/// # Errors
/// [`Error::NotFound`] when there is no such starter, [`Error::Invalid`] as for packs and rules.
pub async fn add(app: &App, permit: &Permit<Edit>, id: &str, saving: &Saving) -> Result<()> {
    let (name, text) = STARTERS
        .iter()
        .find(|(name, _)| *name == id)
        .ok_or(Error::NotFound)?;
    let starter = read(text);
    let known = ostiary_store::packs::find_id(&mut *app.db.acquire().await?, name).await?;
    if known.is_none() {
        let file = UploadedFile {
            name: format!("{name}.conf"),
            text: starter.pack.to_string(),
        };
        let draft = ImportDraft {
            files: vec![file],
            name: (*name).to_owned(),
            target: String::new(),
            replace: false,
            switch_on: false,
        };
        let import = Import::read(&draft)?;
        let shown = config_import::dry_run(app, permit, &import).await?;
        config_import::apply(app, permit, &import, &shown.digest, saving).await?;
    }
    rules::create(app, permit, &draft_of(starter.rule)).await?;
    Ok(())
}

fn draft_of(rule: StarterRule) -> RuleDraft {
    let default = RuleDraft::new();
    RuleDraft {
        name: rule.name,
        description: rule.description,
        severity: rule.severity,
        conditions: json!(rule.conditions).to_string(),
        entity_columns: rule.entity_columns.join(", "),
        watch: rule.watch.unwrap_or_else(|| default.watch.clone()),
        watch_count: rule
            .watch_count
            .map_or_else(String::new, |count| count.to_string()),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use ostiary_domain::ids::RuleId;

    use super::*;

    #[test]
    fn every_starter_is_a_rule_over_queries_of_its_own_pack() {
        for (name, text) in STARTERS {
            let starter = read(text);
            let queries: Vec<String> = starter.pack["queries"]
                .as_object()
                .unwrap()
                .keys()
                .map(|query| format!("pack/{name}/{query}"))
                .collect();
            let values = rules::validate(&draft_of(starter.rule))
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let rule = rules::compile(RuleId(uuid::Uuid::nil()), &values).unwrap();
            let named = rule
                .query_names()
                .unwrap_or_else(|| panic!("{name} names no query"));
            assert!(!named.is_empty());
            for query in named {
                assert!(queries.iter().any(|own| own == query), "{name}: {query}");
            }
        }
    }
}
