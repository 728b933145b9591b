//! By which certificates nodes and people know us: the bundle that nodes are given, what our processes serve, who has accepted what.
//! `pages::certificates` and `rest::certificates` show it.
//!
//! A change of the CA goes: make the new root and name it in `[manager] next_ca_certificate`, so that the bundle holds both; bring the
//! bundle to the nodes; put a certificate under it on trial (`[api] next_certificate`); when nobody is missing any more, serve it.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::certificates::{self, ChainId, Details};
use ostiary_boot::tls::Shown;
use ostiary_store::certificates::{
    self as store, ChainRole, Fingerprint, Reach, Refused, SAID_EVERY, ServedChain,
};
use ostiary_store::{Conn, Db};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::state::App;

/// Nodes that were heard of in this time count as missing when they have not accepted a chain.
const HEARD_OF: TimeDelta = TimeDelta::days(30);

/// Addresses that refused, on one page.
const MOST_REFUSED: i64 = 100;

/// From how many days before its end on a certificate is warned of.
const WARN_DAYS: i64 = 30;

/// What nodes are given to trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bundle {
    pub(crate) present: Vec<CertificateDer<'static>>,
    pub(crate) next: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// Reads the files of the settings. One that is missing or damaged counts as empty, with a word in the log.
    pub(crate) async fn read(app: &App) -> Self {
        let options = &app.settings.manager;
        Self {
            present: read(&options.ca_certificate).await,
            next: read(&options.next_ca_certificate).await,
        }
    }

    /// All roots, each once: those of now first.
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        for root in self.present.iter().chain(&self.next) {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        roots
    }
}

/// **Invariant:** only certificates: a key that lies in the same file is left out.
async fn read(path: &Path) -> Vec<CertificateDer<'static>> {
    if path.as_os_str().is_empty() {
        return Vec::new();
    }
    let read = tokio::fs::read(path).await.map_err(anyhow::Error::from);
    read.and_then(|pem| certificates::from_pem(&pem))
        .unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "a file with roots cannot be read");
            Vec::new()
        })
}

/// A certificate, for people.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shape {
    #[serde(flatten)]
    details: Details,
    days_left: i64,
    /// `good`, `soon` or `expired`.
    state: &'static str,
}

impl Shape {
    fn of(der: &CertificateDer<'_>, now: DateTime<Utc>) -> Option<Self> {
        let details = certificates::details(der)?;
        let days_left = (details.not_after - now).num_days();
        let state = if details.not_after <= now {
            "expired"
        } else if days_left < WARN_DAYS {
            "soon"
        } else {
            "good"
        };
        Some(Self {
            details,
            days_left,
            state,
        })
    }
}

/// A chain that is or was shown to nodes or people.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChainView {
    pub(crate) id: String,
    pub(crate) role: &'static str,
    /// Some process serves it now.
    pub(crate) served: bool,
    pub(crate) first_served_at: DateTime<Utc>,
    pub(crate) last_served_at: DateTime<Utc>,
    /// The leaf first.
    pub(crate) certificates: Vec<Shape>,
    /// What nodes or people could have against it.
    pub(crate) problems: Vec<String>,
    /// Nodes that have accepted this chain or another under the same root; of a chain for people 0.
    pub(crate) accepted: i64,
    /// Nodes heard of in the last 30 days that have not: they could be cut off.
    pub(crate) missing: i64,
    /// Who said no, by address.
    pub(crate) refused: Vec<RefusedView>,
}

/// An address from which a chain on trial was refused.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefusedView {
    pub(crate) address: String,
    pub(crate) refusals: i32,
    pub(crate) last_refused_at: DateTime<Utc>,
    pub(crate) said: String,
}

/// Everything about certificates.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    /// The name that nodes connect to.
    pub(crate) host: String,
    pub(crate) chains: Vec<ChainView>,
    /// Roots in the bundle.
    pub(crate) roots: Vec<Shape>,
    /// Roots that are only to come.
    pub(crate) next_roots: Vec<Shape>,
}

/// Gathers it.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn view(app: &App, conn: &mut Conn) -> ostiary_store::Result<View> {
    let now = app.now();
    let bundle = Bundle::read(app).await;
    let roots = bundle.roots();
    let host = host_of(&app.settings.public.api_host).to_owned();
    let served = store::list_served(conn).await?;
    let mut chains = Vec::new();
    for chain in served.iter().filter(|chain| of_a_listener(chain.role)) {
        chains.push(chain_view(conn, chain, &served, (&roots, &host), now).await?);
    }
    // What is served now first, and of that what nodes see.
    chains.sort_by_key(|chain| {
        (
            !chain.served,
            chain.role,
            std::cmp::Reverse(chain.last_served_at),
        )
    });
    let shapes =
        |ders: &[CertificateDer<'_>]| ders.iter().filter_map(|der| Shape::of(der, now)).collect();
    Ok(View {
        host,
        chains,
        roots: shapes(&bundle.present),
        next_roots: shapes(&bundle.next),
    })
}

fn of_a_listener(role: ChainRole) -> bool {
    !matches!(role, ChainRole::Ca | ChainRole::CaNext)
}

async fn chain_view(
    conn: &mut Conn,
    chain: &ServedChain,
    served: &[ServedChain],
    (roots, host): (&[CertificateDer<'static>], &str),
    now: DateTime<Utc>,
) -> ostiary_store::Result<ChainView> {
    let ders = ders_of(chain);
    let for_nodes = chain.role != ChainRole::Manager;
    let (reach, refused) = if for_nodes {
        let alike = alike(chain, served);
        (
            store::count_reach(conn, &alike, now - HEARD_OF).await?,
            store::list_refused(conn, &chain.fingerprint, MOST_REFUSED).await?,
        )
    } else {
        (Reach::default(), Vec::new())
    };
    let problems = problems_of(chain, roots, host, now);
    Ok(ChainView {
        id: id_of(&chain.fingerprint),
        role: chain.role.as_str(),
        served: chain.is_served(now),
        first_served_at: chain.first_served_at,
        last_served_at: chain.last_served_at,
        certificates: ders.iter().filter_map(|der| Shape::of(der, now)).collect(),
        problems,
        accepted: reach.accepted,
        missing: reach.missing,
        refused: refused.into_iter().map(refused_view).collect(),
    })
}

fn refused_view(refused: Refused) -> RefusedView {
    RefusedView {
        address: refused.address.to_string(),
        refusals: refused.refusals,
        last_refused_at: refused.last_refused_at,
        said: refused.last_error,
    }
}

/// The word by which a chain is known in URLs.
fn id_of(fingerprint: &Fingerprint) -> String {
    hex::encode(fingerprint)
}

/// A chain by that word, and every chain that leads to the same root: who accepts one accepts all.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn find_alike(
    conn: &mut Conn,
    id: &str,
) -> ostiary_store::Result<Option<Vec<Fingerprint>>> {
    let served = store::list_served(conn).await?;
    let chain = served
        .iter()
        .find(|chain| id_of(&chain.fingerprint) == id && of_a_listener(chain.role));
    Ok(chain.map(|chain| alike(chain, &served)))
}

fn alike(chain: &ServedChain, served: &[ServedChain]) -> Vec<Fingerprint> {
    let anchor = certificates::anchor(&ders_of(chain));
    let mut alike: Vec<Fingerprint> = served
        .iter()
        .filter(|other| of_a_listener(other.role))
        .filter(|other| anchor.is_some() && certificates::anchor(&ders_of(other)) == anchor)
        .map(|other| other.fingerprint)
        .chain([chain.fingerprint])
        .collect();
    alike.sort_unstable();
    alike.dedup();
    alike
}

fn ders_of(chain: &ServedChain) -> Vec<CertificateDer<'static>> {
    certificates::from_pem(chain.pem.as_bytes()).unwrap_or_default()
}

/// `fleet.example.com:443` is `fleet.example.com`, `[::1]:443` is `::1`.
pub(crate) fn host_of(api_host: &str) -> &str {
    let host = match api_host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => api_host,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What to warn of on the first page: whatever nodes or people could have against what is served now, and ends that come near.
///
/// # Errors
/// Postgres failed.
pub(crate) async fn warnings(app: &App, conn: &mut Conn) -> ostiary_store::Result<Vec<String>> {
    let now = app.now();
    let roots = Bundle::read(app).await.roots();
    let host = host_of(&app.settings.public.api_host);
    let mut warnings = Vec::new();
    for chain in store::list_served(conn).await? {
        if chain.is_served(now) && of_a_listener(chain.role) {
            warnings.extend(problems_of(&chain, &roots, host, now));
            warnings.extend(ending(&ders_of(&chain), now));
        }
    }
    warnings.extend(ending(&roots, now));
    warnings.dedup();
    Ok(warnings)
}

fn problems_of(
    chain: &ServedChain,
    roots: &[CertificateDer<'static>],
    host: &str,
    now: DateTime<Utc>,
) -> Vec<String> {
    let ders = ders_of(chain);
    match chain.role {
        ChainRole::Manager => certificates::weaknesses(&ders, now),
        _ => certificates::problems(&ders, roots, host, now),
    }
}

fn ending(chain: &[CertificateDer<'_>], now: DateTime<Utc>) -> Vec<String> {
    let soon = chain
        .iter()
        .filter_map(|der| Shape::of(der, now))
        .filter(|one| one.state == "soon");
    soon.map(|one| format!("{} ends in {} days.", one.details.subject, one.days_left))
        .collect()
}

/// Tells Postgres and the metrics of our own certificate and of the bundle, until `shutdown`.
pub(crate) async fn tell(app: App, shown: Option<Shown>, shutdown: CancellationToken) {
    let period = SAID_EVERY.to_std().unwrap_or(Duration::from_secs(60));
    loop {
        if let Err(error) = tell_once(&app, shown.as_ref()).await {
            tracing::warn!(%error, "what is known of certificates cannot be written");
        }
        if tokio::time::timeout(period, shutdown.cancelled())
            .await
            .is_ok()
        {
            return;
        }
    }
}

async fn tell_once(app: &App, shown: Option<&Shown>) -> ostiary_store::Result<()> {
    let now = app.now();
    let bundle = Bundle::read(app).await;
    let own = shown.map(|shown| shown.present().certificates);
    let chains = [
        (ChainRole::Manager, own.unwrap_or_default()),
        (ChainRole::Ca, bundle.present),
        (ChainRole::CaNext, bundle.next),
    ];
    let mut tx = app.db.begin().await?;
    for (role, ders) in chains.iter().filter(|(_, ders)| !ders.is_empty()) {
        certificates::measure(role.as_str(), ders, now);
        let pem = certificates::to_pem(ders);
        store::put_served(&mut tx, *role, &ChainId::of(ders).0, &pem, now).await?;
    }
    let backup = ostiary_store::backups::find_latest(&mut tx).await?;
    Db::commit(tx).await?;
    if let Some(backup) = backup {
        metrics::gauge!("ostiary_backup_age_seconds").set((now - backup.made_at).as_seconds_f64());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_host_comes_without_its_port() {
        for (api_host, host) in [
            ("fleet.example.com:8443", "fleet.example.com"),
            ("fleet.example.com", "fleet.example.com"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[::1]:443", "::1"),
        ] {
            assert_eq!(host_of(api_host), host);
        }
    }
}
