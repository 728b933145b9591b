//! The options that a node heeds: those of its document, and those that come inside a pack.
//!
//! osqueryd reads every top-level key inside a pack, too, if the pack's conditions take the node in when it is loaded, packs before the
//! document itself (`osquery/config/config.cpp::addPack`, `applyParsers`). So an option of the document wins over a pack's, and of
//! two packs the later.

use serde_json::{Map, Value};

use super::conditions::{in_shard, takes_platform, takes_version};
use super::{Pack, Parts, assemble};
use crate::node::NodeFacts;
use crate::target::TargetText;

impl Pack {
    /// The options that came inside it.
    pub fn options(&self) -> impl Iterator<Item = (&str, &Value)> {
        let options = self.extra.get("options").and_then(Value::as_object);
        let members = options.into_iter().flatten();
        members.map(|(name, value)| (name.as_str(), value))
    }

    /// Do its conditions take the node in, as far as can be told? What a discovery finds is not known here: it is taken for found.
    #[must_use]
    pub fn is_for(&self, node: &NodeFacts) -> bool {
        takes_platform(&self.platform, &node.platform)
            && takes_version(&self.version, &node.osquery_version)
            && (self.shard).is_none_or(|percent| in_shard(percent, &node.hostname))
    }
}

impl Parts {
    /// All options that a node heeds. Call it on [`sorted`](Self::sorted) parts.
    #[must_use]
    pub fn options_of(&self, node: &NodeFacts) -> Map<String, Value> {
        let selection = self.select(node);
        let chosen = self.chosen(&selection);
        let mut options = Map::new();
        for pack in chosen.packs.iter().filter(|pack| pack.is_for(node)) {
            let own = pack.options();
            options.extend(own.map(|(name, value)| (name.to_owned(), value.clone())));
        }
        options.extend(assemble::options(&chosen));
        options
    }

    /// Which of the packs that bring options a node heeds. With [`select`](Self::select) it decides what [`Self::options_of`] gives.
    #[must_use]
    pub(crate) fn heeds(&self, node: &NodeFacts) -> Vec<bool> {
        let bringing = (self.packs.iter()).filter(|pack| pack.options().next().is_some());
        bringing.map(|pack| pack.is_for(node)).collect()
    }

    /// Every option that is sent, with its target, whether it stands by itself or inside a pack.
    pub(crate) fn sent_options(&self) -> impl Iterator<Item = (&str, &TargetText)> {
        let own = (self.options.iter()).map(|option| (option.name.as_str(), &option.target));
        let packs = self.packs.iter().filter(|pack| pack.enabled);
        own.chain(packs.flat_map(|pack| pack.options().map(|(name, _)| (name, &pack.target))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{OptionId, PackId};
    use crate::node_config::{ConfigOption, Fate};

    fn pack(name: &str, options: Value) -> Pack {
        Pack {
            id: PackId(Uuid::nil()),
            name: name.into(),
            description: String::new(),
            target: TargetText::parse("").unwrap(),
            enabled: true,
            built_in: false,
            platform: String::new(),
            version: String::new(),
            shard: None,
            discovery: Vec::new(),
            extra: [("options".to_owned(), options)].into_iter().collect(),
            queries: Vec::new(),
        }
    }

    fn parts(packs: Vec<Pack>) -> Parts {
        Parts {
            packs,
            ..Parts::default()
        }
        .sorted()
    }

    #[test]
    fn the_document_wins_over_packs_and_the_later_pack_over_the_earlier() {
        let mut parts = parts(vec![
            pack("b", json!({"read_max": 2, "utc": true})),
            pack("a", json!({"read_max": 1, "verbose": true})),
        ]);
        parts.options.push(ConfigOption {
            id: OptionId(Uuid::nil()),
            name: "verbose".into(),
            value: json!(false),
            target: TargetText::parse("").unwrap(),
            priority: 0,
        });
        let node = NodeFacts::default();
        let heeded = parts.options_of(&node);
        assert_eq!(
            (&heeded["read_max"], &heeded["verbose"], &heeded["utc"]),
            (&json!(2), &json!(false), &json!(true))
        );
        let said: Vec<_> = (parts.explain(&node).into_iter())
            .filter(|each| each.name.starts_with("verbose = true"))
            .collect();
        assert_eq!(said[0].name, "verbose = true (pack a)");
        assert!(matches!(said[0].fate, Fate::NotRun(_)), "{said:?}");
    }

    #[test]
    fn what_a_pack_has_set_is_reset_when_it_is_gone() {
        let now = chrono::DateTime::UNIX_EPOCH;
        let before = parts(vec![pack("a", json!({"logger_tls_period": 60}))]);
        let mut disabled = before.clone();
        disabled.packs[0].enabled = false;
        let left = before.leftovers_in(&disabled, now);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].name, "logger_tls_period");
        disabled.leftovers = left;
        let node = NodeFacts::default();
        assert_eq!(disabled.options_of(&node)["logger_tls_period"], json!(4));
        // Another pack that sets it is not overruled by the default.
        let mut other = disabled.clone();
        other
            .packs
            .push(pack("b", json!({"logger_tls_period": 10})));
        assert_eq!(other.options_of(&node)["logger_tls_period"], json!(10));
        assert!(other.supersedes(&other.leftovers[0]));
        assert_eq!(before.leftovers_in(&other, now), []);
    }
}
