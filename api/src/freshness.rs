//! Keeps in step with Postgres what the process holds in memory: told by NOTIFY, and by comparing generations now and then, since a
//! notification may be lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::App;

/// A database that vanished without a word would be waited for until the end of TCP's patience.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

/// Names, platforms and versions of nodes change without a generation (the worker writes them, for many nodes at a time): nodes are read
/// whole this often.
const READ_NODES_EVERY: Duration = Duration::from_secs(300);

/// What the process has read.
#[derive(Debug, Default)]
struct Seen {
    generations: HashMap<String, i64>,
    nodes_at: Option<Instant>,
}

/// Follows the generations until `shutdown`. A generation counts as seen only after its things were read anew.
pub(crate) async fn follow(app: App, shutdown: CancellationToken) {
    let poll = Duration::from_millis(app.options.freshness_poll_ms);
    let mut seen = Seen::default();
    let mut listener = None;
    loop {
        if listener.is_none() {
            listener = tokio::time::timeout(app.options.answer_timeout(), app.db.listen())
                .await
                .ok()
                .and_then(Result::ok);
        }
        match tokio::time::timeout(CATCH_UP_LIMIT, catch_up(&app, &mut seen)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep in step with the database"),
            Err(_) => tracing::warn!("cannot keep in step with the database: it hangs"),
        }
        let news = async {
            match &mut listener {
                Some(listening) => listening.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            heard = news => if !heard { listener = None },
            () = tokio::time::sleep(poll) => {}
        }
    }
}

async fn catch_up(app: &App, seen: &mut Seen) -> ostiary_store::Result<()> {
    let present = {
        let mut conn = app.db.acquire().await?;
        ostiary_store::generations(&mut conn).await?
    };
    let whole = seen
        .nodes_at
        .is_none_or(|at| at.elapsed() >= READ_NODES_EVERY);
    for (name, generation) in present {
        let is_news = seen.generations.get(&name) != Some(&generation);
        match name.as_str() {
            "node_keys" if is_news || whole => {
                app.nodes.catch_up(&app.db, generation, whole).await?;
            }
            "configs" if is_news => app.configs.reload(&app.db).await?,
            "live_queries" if is_news => {
                app.live_queries.reload(&app.db, app.clock.now()).await?;
            }
            _ => {}
        }
        seen.generations.insert(name, generation);
    }
    if whole {
        app.learn_secrets().await?;
        seen.nodes_at = Some(Instant::now());
    }
    Ok(())
}
