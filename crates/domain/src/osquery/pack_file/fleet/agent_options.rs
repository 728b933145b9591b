//! The config of osqueryd inside of `agent_options`.

use serde_json::{Map, Value};

use super::super::import::whole_config;
use super::super::{ImportedFile, Problem};
use super::documents::Reading;

impl Reading {
    pub(super) fn agent_options(&mut self, path: &str, options: Option<Value>) {
        let mut options = match options {
            None | Some(Value::Null) => return,
            Some(Value::Object(options)) => options,
            Some(_) => {
                return self.problem(
                    path,
                    "agent_options have to be an object; they are left out",
                );
            }
        };
        if self.whom.is_some() {
            return self.problem(path, "agent_options of a team are left out; import them in a file of their own, with the team's tag as target");
        }
        if let Some(file) = options.get("path").and_then(Value::as_str) {
            return self.elsewhere(path, file);
        }
        if let Some(Value::Object(config)) = options.remove("config") {
            let mut found = ImportedFile::default();
            whole_config(&mut found, Self::entry(&mut self.problems, "", config));
            let file = &mut self.file;
            file.packs.append(&mut found.packs);
            file.schedule.append(&mut found.schedule);
            file.file_paths.append(&mut found.file_paths);
            file.options.append(&mut found.options);
            join(&mut file.decorators, found.decorators);
            for (key, value) in found.extra {
                if file.extra.contains_key(&key) {
                    self.problems.push(Problem {
                        entry: format!("{path}, {key}"),
                        what: "another one of these documents has this key; it is left out"
                            .to_owned(),
                    });
                } else {
                    file.extra.insert(key, value);
                }
            }
        }
        for (key, value) in options {
            let is_empty = match &value {
                Value::Null => true,
                Value::Object(members) => members.is_empty(),
                _ => false,
            };
            if !is_empty {
                self.problem(
                    &format!("{path}, {key}"),
                    "this is no part of a config that osqueryd takes; it is left out",
                );
            }
        }
    }
}

/// Decorators of several documents stand beside each other.
fn join(into: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => join(known, more),
            (Some(known), more) => {
                let both = [known.take(), more]
                    .into_iter()
                    .flat_map(|value| match value {
                        Value::Array(items) => items,
                        value => vec![value],
                    });
                *known = Value::Array(both.collect());
            }
            (None, value) => {
                into.insert(key, value);
            }
        }
    }
}
