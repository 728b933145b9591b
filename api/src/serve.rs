//! Starts and stops the api.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ostiary_boot::clock::SystemClock;
use ostiary_boot::http::{self, Listener};
use ostiary_boot::trials::Trials;
use ostiary_boot::{metrics, tls};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{App, Settings, certificates, freshness, router};

/// An api that listens.
#[derive(Debug)]
pub struct Running {
    /// Address of the TLS listener, if there is one.
    pub address: Option<SocketAddr>,
    /// Address of the plain listener, if there is one.
    pub plain_address: Option<SocketAddr>,
    /// What its requests share.
    pub app: App,
    stopped: JoinHandle<()>,
}

impl Running {
    /// Waits until it has stopped: requests under way are answered and everything is written.
    ///
    /// # Errors
    /// A part of it panicked.
    pub async fn stopped(self) -> anyhow::Result<()> {
        drop(self.app);
        self.stopped.await.context("the api ended in a panic")
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// It cannot listen, or the settings cannot be meant. A missing Postgres or Redis is no error: both may come back.
pub async fn serve(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    start(settings, shutdown).await?.stopped().await
}

/// Starts to serve, and returns as soon as it listens.
///
/// # Errors
/// As [`serve`].
pub async fn start(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let recorder = metrics::start();
    let options = settings.api.clone();
    let mut listeners = Vec::new();
    let (mut address, mut plain_address) = (None, None);
    let mut tls_served = None;
    let background = TaskTracker::new();
    if let Some(listen) = options.listen {
        let (config, certificate) = tls::server_config(&options.tls())?;
        let shown = certificate.shown();
        let pause = Duration::from_secs(options.next_certificate_trial_seconds);
        let trials = shown.next().map(|_| Arc::new(Trials::new(pause)));
        let mut listener = Listener::tls(listen, config).await?;
        if let Some(trials) = &trials {
            listener = listener.with_trials(trials.clone());
        }
        address = Some(listener.address()?);
        listeners.push(listener);
        let period = Duration::from_secs(options.certificate_check_seconds.max(1));
        background.spawn(certificate.watch(period, shutdown.clone()));
        tls_served = Some((shown, trials));
    }
    if let Some(listen) = options.plain_listen {
        let listener = Listener::plain(listen, &options.trusted_proxies).await?;
        plain_address = Some(listener.address()?);
        listeners.push(listener);
    }
    ensure!(
        !listeners.is_empty(),
        "[api] names neither listen nor plain_listen"
    );

    let app = App::new(settings, Arc::new(SystemClock), &background)?;
    let router = router::router(app.clone(), recorder);
    background.spawn(freshness::follow(app.clone(), shutdown.clone()));
    background.spawn(flush_checkins(app.clone(), shutdown.clone()));
    if let Some((shown, trials)) = tls_served {
        background.spawn(certificates::tell(
            app.clone(),
            shown,
            trials,
            shutdown.clone(),
        ));
    }
    tracing::info!(?address, ?plain_address, "the api listens");
    let connections = TaskTracker::new();
    for listener in listeners {
        connections.spawn(http::serve(
            listener,
            router.clone(),
            options.http.clone(),
            shutdown.clone(),
        ));
    }
    drop(router);
    let stopped = tokio::spawn(stop(app.clone(), connections, background, shutdown));
    Ok(Running {
        address,
        plain_address,
        app,
        stopped,
    })
}

async fn stop(
    app: App,
    connections: TaskTracker,
    background: TaskTracker,
    shutdown: CancellationToken,
) {
    shutdown.cancelled().await;
    connections.close();
    connections.wait().await;
    if let Err(error) = app.flush_checkins().await {
        tracing::warn!(%error, "the last check-ins are lost");
    }
    let db = app.db.clone();
    drop(app);
    background.close();
    // A test may still hold the app and with it the writers; they have nothing left to do.
    let _ = tokio::time::timeout(Duration::from_secs(5), background.wait()).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), db.close()).await;
}

async fn flush_checkins(app: App, shutdown: CancellationToken) {
    let period = Duration::from_millis(app.options.checkin_flush_ms);
    while tokio::time::timeout(period, shutdown.cancelled())
        .await
        .is_err()
    {
        if let Err(error) = app.flush_checkins().await {
            tracing::warn!(%error, "check-ins cannot be written, and are kept");
        }
    }
}
