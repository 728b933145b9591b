//! The listener: plain HTTP on loopback or behind a proxy, or TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use ostiary_boot::clock::SystemClock;
use ostiary_boot::http::{self, Listener};
use ostiary_boot::{metrics, tls};
use ostiary_store::{Db, sessions};
use tokio_util::sync::CancellationToken;

use crate::actions::look_at_all;
use crate::settings::Settings;
use crate::state::App;
use crate::{assets, certificates, router};

/// How often ended sessions are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// How long it is waited for a database that does not answer, before all SQL is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often a renewed certificate is looked for.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// Serves until `shutdown`, then lets requests under way end.
///
/// # Errors
/// The settings would serve passwords in the clear, the address is taken, or the certificate cannot be read.
pub async fn serve(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    metrics::start();
    assets::warn_if_missing();
    let db = Db::prepare(&settings.database, "ostiary-manager")?;
    let (listener, shown) = listen(&settings, &shutdown).await.context("[manager]")?;
    tracing::info!(listen = %listener.address()?, tls = settings.manager.has_tls(), "the manager listens");
    let app = App::new(db, settings, Arc::new(SystemClock));
    let pruning = tokio::spawn(prune(app.clone()));
    let looking = tokio::spawn(look_at_sql(app.clone()));
    let telling = tokio::spawn(certificates::tell(app.clone(), shown, shutdown.clone()));
    http::serve(
        listener,
        router::router(app.clone()),
        http::Options::default(),
        shutdown,
    )
    .await;
    pruning.abort();
    looking.abort();
    telling.abort();
    app.db.close().await;
    Ok(())
}

async fn listen(
    settings: &Settings,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Listener, Option<tls::Shown>)> {
    let options = &settings.manager;
    if !options.has_tls() {
        let listener = Listener::plain(options.listen, &options.trusted_proxies).await?;
        return Ok((listener, None));
    }
    let files = tls::Options {
        certificate: options.certificate.clone(),
        private_key: options.private_key.clone(),
        ..tls::Options::default()
    };
    let (config, certificate) = tls::server_config(&files)?;
    let shown = certificate.shown();
    tokio::spawn(certificate.watch(WATCH_EVERY, shutdown.clone()));
    Ok((Listener::tls(options.listen, config).await?, Some(shown)))
}

/// Looks at all SQL once: this release may know other tables than that which looked before.
async fn look_at_sql(app: App) {
    let mut ticks = tokio::time::interval(LOOK_AGAIN);
    loop {
        ticks.tick().await;
        let looked = async {
            let mut tx = app.db.begin().await?;
            let looked = look_at_all(&app.sql_checkers, &mut tx, app.now()).await?;
            Db::commit(tx).await?;
            ostiary_store::Result::Ok(looked)
        };
        match looked.await {
            Ok(looked) => {
                tracing::info!(?looked, "all SQL was looked at");
                return;
            }
            Err(error) => tracing::warn!(%error, "SQL could not be looked at yet"),
        }
    }
}

/// Forgets ended sessions now and then.
async fn prune(app: App) {
    let mut ticks = tokio::time::interval(PRUNE_EVERY);
    loop {
        ticks.tick().await;
        let now = app.now();
        let window = TimeDelta::minutes(app.settings.manager.sign_in_window_minutes);
        let pruned =
            async { sessions::prune(&mut *app.db.acquire().await?, now, now - window).await };
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "ended sessions could not be forgotten");
        }
    }
}
