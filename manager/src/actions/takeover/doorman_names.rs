//! Names of results that are others here than they were in Doorman, and conditions of rules that name them.

use std::collections::{BTreeMap, BTreeSet};

use ostiary_store::doorman::DoormanDatabase;
use serde_json::{Value, json};

/// A pack's name as it is here: a slash ends it in the names of results.
pub(in crate::actions) fn pack_name(name: &str) -> String {
    name.replace('/', "-")
}

/// Which names became which.
#[derive(Debug, Clone, Default)]
pub(super) struct Renamed {
    /// Whole names there, and what bears them here: one query may have become several.
    exact: BTreeMap<String, BTreeSet<String>>,
    /// Packs by their names there, and here.
    packs: BTreeMap<String, String>,
}

/// What became of a rule's conditions.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Names that were put in place of others: from, to.
    pub(super) names: Vec<(String, String)>,
    /// Texts that may mean a renamed thing and were left as they are.
    pub(super) unclear: Vec<String>,
}

impl Renamed {
    /// Names of packs and of their queries. Doorman's flags set `--pack_delimiter=/`, osquery's default is `_`; here it is always `/`.
    pub(super) fn of(database: &DoormanDatabase) -> Self {
        let mut renamed = Self::default();
        for pack in &database.packs {
            let (there, here) = (&pack.name, pack_name(&pack.name));
            let members = database
                .queries
                .iter()
                .filter(|query| pack.queries.contains(&query.id));
            for query in members.map(|query| &query.name) {
                for delimiter in ['/', '_'] {
                    let old = format!("pack{delimiter}{there}{delimiter}{query}");
                    renamed.note(old, format!("pack/{here}/{query}"));
                }
            }
            if *there != here {
                renamed.packs.insert(there.clone(), here);
            }
        }
        renamed
    }

    /// A thing that was called so there is called so here.
    pub(super) fn note(&mut self, there: String, here: String) {
        self.exact.entry(there).or_default().insert(here);
    }

    /// Puts the names of here into conditions.
    pub(super) fn rewrite(&self, node: &mut Value, done: &mut Rewritten) {
        if let Some(rules) = node.get_mut("rules").and_then(Value::as_array_mut) {
            for rule in rules {
                self.rewrite(rule, done);
            }
            return;
        }
        if node.get("field").and_then(Value::as_str) != Some("query_name") {
            return;
        }
        let text = |member: &str| node.get(member).and_then(Value::as_str).map(str::to_owned);
        let (Some(operator), Some(name)) = (text("operator"), text("value")) else {
            return;
        };
        match operator.as_str() {
            "equal" => self.rewrite_equal(node, &name, "OR", done),
            "not_equal" => self.rewrite_equal(node, &name, "AND", done),
            "matches_regex" | "not_matches_regex" => {
                if self.packs.keys().any(|pack| name.contains(pack)) {
                    done.unclear.push(name);
                }
            }
            _ => {
                let mut new = name.clone();
                for (there, here) in &self.packs {
                    new = new.replace(there, here);
                }
                if new != name {
                    node["value"] = json!(new);
                    done.names.push((name, new));
                } else if self.packs.keys().any(|pack| {
                    let whole = format!("pack/{pack}/");
                    whole.starts_with(&name)
                        && !format!("pack/{}/", pack_name(pack)).starts_with(&name)
                }) {
                    done.unclear.push(name);
                }
            }
        }
    }

    fn rewrite_equal(&self, node: &mut Value, name: &str, joined: &str, done: &mut Rewritten) {
        let Some(names) = self.exact.get(name) else {
            return;
        };
        if names.len() == 1 && names.contains(name) {
            return;
        }
        let leaves: Vec<Value> = names
            .iter()
            .map(|name| {
                let mut leaf = node.clone();
                leaf["value"] = json!(name);
                leaf
            })
            .collect();
        let here: Vec<&str> = names.iter().map(String::as_str).collect();
        done.names.push((name.to_owned(), here.join(", ")));
        *node = match leaves.as_slice() {
            [only] => only.clone(),
            _ => json!({"condition": joined, "rules": leaves}),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_results_as_they_are_called_here() {
        let mut renamed = Renamed::default();
        renamed.packs.insert("it/mac".into(), "it-mac".into());
        renamed.note("pack/it/mac/usb".into(), "pack/it-mac/usb".into());
        renamed.note("pack_it/mac_usb".into(), "pack/it-mac/usb".into());
        renamed.note("processes".into(), "processes".into());
        renamed.note("processes".into(), "processes (5)".into());
        let leaf = |operator: &str, value: &str| json!({"field": "query_name", "operator": operator, "value": value});
        let either = |condition: &str, operator: &str| json!({"condition": condition, "rules": [leaf(operator, "processes"), leaf(operator, "processes (5)")]});
        for (before, after, unclear) in [
            (
                leaf("equal", "pack/it/mac/usb"),
                leaf("equal", "pack/it-mac/usb"),
                false,
            ),
            (
                leaf("not_equal", "pack_it/mac_usb"),
                leaf("not_equal", "pack/it-mac/usb"),
                false,
            ),
            (
                leaf("begins_with", "pack/it/mac/"),
                leaf("begins_with", "pack/it-mac/"),
                false,
            ),
            (
                leaf("contains", "it/mac"),
                leaf("contains", "it-mac"),
                false,
            ),
            (
                leaf("begins_with", "pack/it/"),
                leaf("begins_with", "pack/it/"),
                true,
            ),
            (
                leaf("begins_with", "pack/"),
                leaf("begins_with", "pack/"),
                false,
            ),
            (
                leaf("matches_regex", "pack/it/mac.*"),
                leaf("matches_regex", "pack/it/mac.*"),
                true,
            ),
            (leaf("equal", "processes"), either("OR", "equal"), false),
            (
                leaf("not_equal", "processes"),
                either("AND", "not_equal"),
                false,
            ),
            (leaf("equal", "users"), leaf("equal", "users"), false),
            (
                json!({"field": "action", "operator": "equal", "value": "processes"}),
                json!({"field": "action", "operator": "equal", "value": "processes"}),
                false,
            ),
        ] {
            let group = |inner: &Value| json!({"condition": "AND", "rules": [inner]});
            let (mut rule, mut done) = (group(&before), Rewritten::default());
            renamed.rewrite(&mut rule, &mut done);
            assert_eq!(rule, group(&after), "{before}");
            assert_eq!(!done.unclear.is_empty(), unclear, "{before}");
            assert_eq!(done.names.is_empty(), before == after, "{before}");
        }
    }
}
