//! What becomes of nodes that come with a key. A key that is known here already is left alone, and so is its node.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{NodeId, TagId};
use ostiary_domain::node::{IdentifierKind, NodeDetails, platform_of};
use ostiary_store::node_keys::KeyHash;
use ostiary_store::takeovers::{self, TakenOver};
use ostiary_store::{Conn, tags};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::actions::config_import::{Action, FieldChange, Note, Step};
use crate::error::Result;
use crate::state::App;

/// A node that comes with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Coming {
    /// Where it was read: `line 7`.
    pub(super) place: String,
    /// SHA-256 of its key, in hex.
    pub(super) key_sha256: String,
    pub(super) host_identifier: String,
    pub(super) hostname: String,
    pub(super) display_name: Option<String>,
    pub(super) platform: String,
    pub(super) hardware_uuid: String,
    pub(super) hardware_serial: String,
    pub(super) hardware_model: String,
    pub(super) enrolled_at: Option<DateTime<Utc>>,
    pub(super) disabled: bool,
    pub(super) tags: Vec<String>,
}

impl Coming {
    fn hash(&self) -> Option<KeyHash> {
        hex::decode(&self.key_sha256).ok()?.try_into().ok()
    }

    fn details(&self) -> NodeDetails {
        NodeDetails {
            host_identifier: self.host_identifier.clone(),
            hostname: self.hostname.clone(),
            platform: platform_of("", &self.platform, &self.platform),
            hardware_uuid: self.hardware_uuid.clone(),
            hardware_serial: self.hardware_serial.clone(),
            hardware_model: self.hardware_model.clone(),
            ..NodeDetails::default()
        }
    }

    fn name(&self) -> &str {
        [
            self.display_name.as_deref().unwrap_or_default(),
            &self.hostname,
            &self.host_identifier,
        ]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("a node without a name")
    }
}

/// What is to be done with one.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It becomes a node.
    New(Coming),
    /// It enrolled here already; the key it has from there is good, too.
    Known(NodeId, Coming),
}

/// What is to be done with all.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<Note>,
    pub(super) arrivals: Vec<Arrival>,
}

impl Arrivals {
    fn note(&mut self, place: &str, text: impl Into<String>) {
        self.notes.push(Note {
            kind: "warning",
            place: place.to_owned(),
            text: text.into(),
        });
    }
}

/// Decides. Nothing is written.
pub(super) async fn decide(conn: &mut Conn, coming: Vec<Coming>) -> Result<Arrivals> {
    let hashes: Vec<Vec<u8>> = coming
        .iter()
        .filter_map(|node| Some(node.hash()?.to_vec()))
        .collect();
    let known: HashMap<Vec<u8>, NodeId> = takeovers::known_keys(conn, &hashes)
        .await?
        .into_iter()
        .collect();
    let mut out = Arrivals::default();
    let mut seen = HashSet::new();
    for node in coming {
        let Some(hash) = node.hash() else {
            continue;
        };
        let (place, name) = (node.place.clone(), node.name().to_owned());
        if !seen.insert(hash) {
            out.note(
                &place,
                "Another one has the same key; this one is left out.",
            );
            continue;
        }
        if known.contains_key(hash.as_slice()) {
            out.steps.push(step(Action::Unchanged, name, Vec::new()));
            continue;
        }
        let mut tag_names = node.tags.clone();
        tag_names.sort();
        let fields = [
            ("host_identifier", json!(node.host_identifier)),
            ("tags", json!(tag_names)),
            ("disabled", json!(node.disabled)),
        ];
        let fields = fields.map(|(field, new)| FieldChange {
            field: field.to_owned(),
            old: serde_json::Value::Null,
            new,
        });
        match same_machine(conn, &node).await?.as_slice() {
            [only] => {
                out.steps.push(step(Action::Changed, name, fields.into()));
                out.note(&place, "A node with these identifiers is here already; it gets this key besides its own.");
                out.arrivals.push(Arrival::Known(*only, node));
            }
            several => {
                if !several.is_empty() {
                    out.note(
                        &place,
                        format!(
                            "{} nodes here share its identifiers, so it becomes another.",
                            several.len()
                        ),
                    );
                }
                out.steps.push(step(Action::Added, name, fields.into()));
                out.arrivals.push(Arrival::New(node));
            }
        }
    }
    Ok(out)
}

fn step(action: Action, name: String, fields: Vec<FieldChange>) -> Step {
    Step {
        action,
        kind: "node",
        name,
        fields,
    }
}

/// Nodes here that are the same machine: by hardware, else by host identifier.
async fn same_machine(conn: &mut Conn, node: &Coming) -> Result<Vec<NodeId>> {
    let details = node.details();
    let identifiers = details.identifiers();
    for wanted in [
        IdentifierKind::HardwareUuid,
        IdentifierKind::Serial,
        IdentifierKind::HostIdentifier,
    ] {
        for (_, value) in identifiers.iter().filter(|(kind, _)| *kind == wanted) {
            let found = takeovers::nodes_with(conn, wanted, value).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(Vec::new())
}

/// Writes what was decided. Tags are made if need be.
pub(super) async fn carry_out(app: &App, conn: &mut Conn, arrivals: Vec<Arrival>) -> Result<()> {
    let now = app.now();
    let mut tag_ids: HashMap<String, TagId> = HashMap::new();
    let mut tagged: HashMap<TagId, Vec<NodeId>> = HashMap::new();
    for arrival in arrivals {
        let (id, node) = match arrival {
            Arrival::Known(id, node) => (id, node),
            Arrival::New(node) => {
                let id = NodeId(new_id());
                let taken_over = TakenOver {
                    id,
                    details: &node.details(),
                    display_name: node.display_name.as_deref(),
                    enrolled_at: node.enrolled_at.unwrap_or(now),
                    disabled_at: node.disabled.then_some(now),
                };
                takeovers::insert_node(conn, &taken_over).await?;
                (id, node)
            }
        };
        if let Some(hash) = node.hash() {
            takeovers::insert_key(conn, new_id(), id, &hash, now).await?;
        }
        for name in node.tags {
            let tag = match tag_ids.get(&name) {
                Some(tag) => *tag,
                None => {
                    let tag = tags::ensure(conn, TagId(new_id()), &name, now).await?;
                    tag_ids.insert(name, tag);
                    tag
                }
            };
            tagged.entry(tag).or_default().push(id);
        }
    }
    for (tag, nodes) in tagged {
        tags::attach(conn, tag, &nodes).await?;
    }
    Ok(())
}
