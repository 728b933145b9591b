//! osquery's options for nodes.

use axum::extract::State;
use axum::response::Response;
use ostiary_domain::ids::OptionId;
use ostiary_domain::node_config::flags::{self, Flag, FlagKind, Settable};
use ostiary_domain::node_config::{Leftover, LeftoverKind};
use ostiary_store::{Conn, config_parts, leftovers, options as store};
use serde_json::{Value, json};

use super::Fields;
use super::entries::{Entry, Words};
use crate::actions::config_change::Saving;
use crate::actions::leftovers::forget as forget_leftover;
use crate::actions::options::{self, OptionDraft};
use crate::auth::{Edit, Permit, Visitor};
use crate::error::Result;
use crate::state::App;

/// For [`super::entries::routes`].
pub(crate) struct Options;

impl Entry for Options {
    type Id = OptionId;
    type Draft = OptionDraft;

    const WORDS: Words = Words {
        noun: "option",
        title: "Options",
        path: "/options",
        nav: "options",
        templates: "pages/options",
        known_as: "option",
    };

    fn draft(fields: &Fields) -> OptionDraft {
        OptionDraft {
            name: fields.owned("name"),
            value: fields.owned("value"),
            target: fields.owned("target"),
            priority: fields.owned("priority"),
        }
    }

    fn fresh(_: &Fields) -> OptionDraft {
        OptionDraft {
            priority: "0".to_owned(),
            ..OptionDraft::default()
        }
    }

    fn more() -> Value {
        json!({"known": options::offered().map(known).collect::<Vec<_>>()})
    }

    fn note(draft: &OptionDraft) -> Option<String> {
        let name = draft.name.trim().trim_start_matches("--");
        options::note(name).map(|note| format!("{name}: {note}"))
    }

    async fn list(conn: &mut Conn) -> Result<Value> {
        let found = store::list(conn).await?;
        let shown = found.iter().map(|option| {
            json!({"id": option.id, "name": option.values.name, "value": option.values.value.to_string(),
                "target": option.values.target, "priority": option.values.priority,
                "note": options::note(&option.values.name)})
        });
        let shown: Vec<Value> = shown.collect();
        let leftovers: Vec<Value> = leftovers::list(conn).await?.iter().map(leftover).collect();
        let packs = config_parts::load_packs(conn).await?;
        let of_packs = packs.iter().flat_map(|pack| {
            pack.options().map(|(name, value)| {
                json!({"pack": pack.name, "pack_id": pack.id, "enabled": pack.enabled, "name": name, "value": value.to_string(),
                    "target": pack.target, "note": options::note(name)})
            })
        });
        let of_packs: Vec<Value> = of_packs.collect();
        Ok(json!({"options": shown, "of_packs": of_packs, "leftovers": leftovers}))
    }

    async fn find(conn: &mut Conn, id: OptionId) -> Result<Option<(String, OptionDraft)>> {
        let found = store::find(conn, id).await?;
        Ok(found.map(|found| (found.values.name.clone(), OptionDraft::from(&found))))
    }

    async fn create(
        app: &App,
        permit: &Permit<Edit>,
        draft: &OptionDraft,
        saving: &Saving,
    ) -> Result<()> {
        options::create(app, permit, draft, saving).await.map(drop)
    }

    async fn update(
        app: &App,
        permit: &Permit<Edit>,
        id: OptionId,
        draft: &OptionDraft,
        saving: &Saving,
    ) -> Result<()> {
        options::update(app, permit, id, draft, saving).await
    }

    async fn delete(
        app: &App,
        permit: &Permit<Edit>,
        id: OptionId,
        confirm: &str,
        saving: &Saving,
    ) -> Result<()> {
        options::delete(app, permit, id, confirm, saving).await
    }
}

/// A flag as the form tells of it.
fn known(flag: &'static Flag) -> Value {
    json!({
        "name": flag.name, "default": flag.default, "since": flag.since, "meaning": flag.meaning,
        "kind": match flag.kind {
            FlagKind::Bool => "true or false",
            FlagKind::Number => "number",
            FlagKind::Text => "text",
        },
        "settable": match flag.settable {
            Settable::ByOptions => "options",
            Settable::AtStart => "start",
            Settable::CommandLine => "command_line",
        },
    })
}

fn leftover(leftover: &Leftover) -> Value {
    let (kind, sent) = match leftover.kind {
        LeftoverKind::Option => {
            let flag = flags::find(&leftover.name);
            let default = flag.and_then(Flag::reset_value);
            ("option", default.map(|default| default.to_string()))
        }
        LeftoverKind::ExcludePaths => ("exclude_paths", Some("[]".to_owned())),
    };
    json!({"kind": kind, "name": leftover.name, "target": leftover.target, "since": leftover.since, "sent": sent})
}

/// `POST /options/forget`: nodes need not be reset any more.
pub(crate) async fn forget(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let kind = match fields.text("kind") {
        "exclude_paths" => LeftoverKind::ExcludePaths,
        _ => LeftoverKind::Option,
    };
    let (name, target) = (fields.text("name"), fields.text("target"));
    let result = forget_leftover(&app, &permit, kind, name, target).await;
    let sentence = "Forgotten. Its default is no longer sent.";
    visitor
        .answer(result, "/options", sentence, "/options")
        .await
}
