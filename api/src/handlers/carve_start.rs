//! `POST /carve/start`: a node has an archive ready. Taken or not, by an answer with or without `session_id`; nothing else in it counts.

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::clock::new_id;
use ostiary_boot::seal::random_token;
use ostiary_domain::carve::{self, Refusal};
use ostiary_domain::ids::CarveId;
use ostiary_domain::osquery::{CarveStart, CarveStarted, sanitise};
use ostiary_store::carves::{self, CarveState, NewCarve};
use ostiary_store::node_keys::KnownNode;
use ostiary_store::{Db, table_denials};

use super::request::Head;
use crate::App;
use crate::checkins::Caller;
use crate::error::Result;
use crate::known_nodes::hash_of;

pub(crate) async fn carve_start(
    State(app): State<App>,
    request: Request,
) -> Result<Json<CarveStarted>> {
    if !app.carves.enabled {
        return Err(Refusal::Off.into());
    }
    let (head, body) = Head::admit(&app, request).await?;
    let read = head.read_small(&app, body).await?;
    let start = CarveStart::parse(&sanitise(&read.bytes).text, head.key())?;
    let (caller, node) = head.authenticate(&app, &start.node_key).await?;
    let session_id = app.within_time(begin(&app, &node, &start, &caller)).await?;
    Ok(Json(CarveStarted { session_id }))
}

/// Stores that the carve begins, and gives it a session. A start that is repeated goes on with the blocks that are there.
async fn begin(app: &App, node: &KnownNode, start: &CarveStart, caller: &Caller) -> Result<String> {
    // What needs no look into Postgres is refused without one.
    let shape = carve::decide(&app.carves, &node.facts, start, None)?;
    let now = app.clock.now();
    let mut conn = app.db.acquire().await?;
    let denials = table_denials::list_values(&mut conn).await?;
    drop(conn);
    if carve::why_not(&app.carves, &denials, &node.facts).is_some() {
        return Err(Refusal::NotThisNode.into());
    }
    let mut tx = app.db.begin().await?;
    carves::lock_starts(&mut tx).await?;
    let begun = carves::find_begun(&mut tx, node.id, &start.carve_id).await?;
    let id = match begun {
        Some(begun) if begun.shape != Some(shape) || begun.state == CarveState::Failed => {
            return Err(Refusal::OtherCarve.into());
        }
        Some(begun) if begun.state == CarveState::Expired => {
            let usage =
                carves::count_use(&mut tx, node.id, Some(begun.id), day_before(now)).await?;
            carve::decide(&app.carves, &node.facts, start, Some(&usage))?;
            carves::begin_again(&mut tx, begun.id, now).await?;
            begun.id
        }
        Some(begun) => begun.id,
        None => {
            let usage = carves::count_use(&mut tx, node.id, None, day_before(now)).await?;
            carve::decide(&app.carves, &node.facts, start, Some(&usage))?;
            let id = CarveId(new_id());
            let new = NewCarve {
                id,
                node: node.id,
                carve_id: &start.carve_id,
                request_id: &start.request_id,
                shape,
                client_version: &caller.client_version,
            };
            carves::insert(&mut tx, &new, now).await?;
            id
        }
    };
    let session_id = random_token::<32>();
    carves::add_session(&mut tx, id, &hash_of(&session_id), &caller.key, now).await?;
    Db::commit(tx).await?;
    tracing::info!(node.id = %node.id, carve.id = %id, bytes = shape.carve_size(), "a carve begins");
    Ok(session_id)
}

fn day_before(now: DateTime<Utc>) -> DateTime<Utc> {
    now - TimeDelta::days(1)
}
