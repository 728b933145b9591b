//! Keeps in step with Postgres what the process holds in memory: told by NOTIFY, and by comparing generations now and then, since a
//! notification may be lost.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::App;

/// A database that vanished without a word would be waited for until the end of TCP's patience.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

/// Follows the generations until `shutdown`. A generation counts as seen only after its things were read anew.
pub(crate) async fn follow(app: App, shutdown: CancellationToken) {
    let poll = Duration::from_millis(app.options.freshness_poll_ms);
    let mut seen = HashMap::new();
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

async fn catch_up(app: &App, seen: &mut HashMap<String, i64>) -> ostiary_store::Result<()> {
    let present = {
        let mut conn = app.db.acquire().await?;
        ostiary_store::generations(&mut conn).await?
    };
    for (name, generation) in present {
        if seen.get(&name) == Some(&generation) {
            continue;
        }
        match name.as_str() {
            "node_keys" => app.nodes.reload(&app.db).await?,
            "configs" => app.configs.reload(&app.db).await?,
            "live_queries" => app.live_queries.reload(&app.db, app.clock.now()).await?,
            _ => {}
        }
        seen.insert(name, generation);
    }
    Ok(())
}
