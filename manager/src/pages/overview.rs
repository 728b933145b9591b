//! Is the fleet healthy?

use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use ostiary_store::finding_lists::{self, FindingFilter, Order};
use ostiary_store::page::PageRequest;
use ostiary_store::{node_lists, overview, silences};
use serde_json::json;

use super::findings::line;
use super::shell::Page;
use crate::auth::{Permit, View, Visitor};
use crate::certificates;
use crate::error::Result;
use crate::state::App;

/// A secret that ends within this time is shown: time enough to bring another one to the machines.
const SECRETS_END_SOON: TimeDelta = TimeDelta::days(14);

/// `GET /`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let traffic = overview::traffic(&mut conn, now).await?;
    let per_minute = overview::rows_per_minute(&mut conn, now).await?;
    let open = FindingFilter {
        state: "open".to_owned(),
        ..FindingFilter::default()
    };
    let worst = finding_lists::list(
        &mut conn,
        &open,
        Order::Worst,
        &PageRequest {
            after: None,
            limit: Some(5),
        },
    )
    .await?;
    let versions = overview::versions(&mut conn).await?;
    let platforms = overview::platforms(&mut conn).await?;
    let context = json!({
        "nodes": node_lists::count(&mut conn, app.cutoffs()).await?,
        "findings": finding_lists::count_open_by_severity(&mut conn).await?,
        "events": {"last_hour": per_minute.iter().sum::<i64>(), "per_minute": per_minute},
        "ingest": {"pending": traffic.pending, "oldest_at": traffic.oldest_at, "unreadable_day": traffic.unreadable_day},
        "enrolled_day": traffic.enrolled_day,
        "new_nodes": node_lists::newest(&mut conn, None, 5).await?,
        "versions": versions.iter().map(|each| json!({"version": each.value, "count": each.count})).collect::<Vec<_>>(),
        "platforms": platforms.iter().map(|each| json!({"platform": each.value, "count": each.count})).collect::<Vec<_>>(),
        "worst": worst.items.iter().map(line).collect::<Vec<_>>(),
        "ending_secrets": overview::ending_secrets(&mut conn, now, now + SECRETS_END_SOON).await?,
        "deliveries": {"dead_day": traffic.dead_day, "waiting": traffic.waiting},
        "silenced": silences::count_active(&mut conn, now).await?,
        "certificate_warnings": certificates::warnings(&app, &mut conn).await?,
    });
    drop(conn);
    Page {
        template: "pages/overview/show.html",
        title: "Overview",
        nav: "overview",
    }
    .show(&app, &visitor, context)
    .await
}
