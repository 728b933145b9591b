//! By which certificates nodes know us: which chains are served is told to Postgres, with what nodes have accepted and refused, for
//! the manager's page; and when they end is told to whoever reads metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_boot::certificates::{self, ChainId};
use ostiary_boot::tls::{Chain, Shown};
use ostiary_boot::trials::{Refusal, Trials};
use ostiary_domain::ids::NodeId;
use ostiary_store::certificates::{self as store, ChainRole, Refused, SAID_EVERY};
use ostiary_store::{Conn, Db};
use tokio_util::sync::CancellationToken;

use crate::App;

/// That a node accepts a chain is written this often at most.
const NOTE_EVERY: TimeDelta = TimeDelta::hours(1);

/// A certificate that ends sooner is worth a word to whoever asks if we are ready.
const ENDS_SOON: TimeDelta = TimeDelta::days(7);

/// Nodes in one statement.
const CHUNK: usize = 5_000;

/// Which nodes have accepted which chains, as far as this process has seen.
#[derive(Debug, Default)]
pub(crate) struct AcceptedChains {
    seen: Mutex<HashMap<(NodeId, ChainId), DateTime<Utc>>>,
    noted: Mutex<HashMap<(NodeId, ChainId), DateTime<Utc>>>,
    /// What the TLS listener shows, if there is one.
    shown: OnceLock<Shown>,
}

impl AcceptedChains {
    /// Does what nodes are shown hold for some days yet? Without a TLS listener there is nothing that could end.
    pub(crate) fn lasts(&self, now: DateTime<Utc>) -> bool {
        let chain = self.shown.get().map(Shown::present);
        let shown = chain.map(|chain| chain.certificates).unwrap_or_default();
        shown
            .iter()
            .filter_map(certificates::details)
            .all(|details| details.not_after - now > ENDS_SOON)
    }

    /// Notes that a node made an authenticated request after it was shown a chain.
    pub(crate) fn note(&self, node: NodeId, chain: Option<ChainId>, now: DateTime<Utc>) {
        let Some(chain) = chain else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.entry((node, chain)).or_insert(DateTime::UNIX_EPOCH);
        if now - *last < NOTE_EVERY {
            return;
        }
        *last = now;
        drop(seen);
        self.noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((node, chain), now);
    }

    async fn flush(&self, db: &Db) -> ostiary_store::Result<()> {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let written = write_accepted(db, &noted).await;
        if written.is_err() {
            let mut newer = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, at) in noted {
                newer.entry(key).or_insert(at);
            }
        }
        written
    }
}

async fn write_accepted(
    db: &Db,
    noted: &HashMap<(NodeId, ChainId), DateTime<Utc>>,
) -> ostiary_store::Result<()> {
    if noted.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<_> = noted
        .iter()
        .map(|((node, chain), at)| (*node, chain.0, *at))
        .collect();
    rows.sort_unstable();
    let mut tx = db.begin().await?;
    for chunk in rows.chunks(CHUNK) {
        store::put_accepted(&mut tx, chunk).await?;
    }
    Db::commit(tx).await
}

/// Tells Postgres and the metrics of our certificates until `shutdown`.
pub(crate) async fn tell(
    app: App,
    shown: Shown,
    trials: Option<Arc<Trials>>,
    shutdown: CancellationToken,
) {
    let period = Duration::from_secs(app.options.certificate_check_seconds.max(1));
    let mut said: Option<(Vec<ChainId>, DateTime<Utc>)> = None;
    // It is told only once.
    let _ = app.accepted.shown.set(shown.clone());
    loop {
        let now = app.clock.now();
        let served = served(&shown);
        let ids: Vec<ChainId> = served.iter().map(|(_, chain)| chain.id).collect();
        measure(&served, now);
        let is_news = said
            .as_ref()
            .is_none_or(|(before, at)| *before != ids || now - *at >= SAID_EVERY);
        let told = async {
            if is_news {
                say(&mut *app.db.acquire().await?, &served, now).await?;
            }
            app.accepted.flush(&app.db).await?;
            tell_refusals(&app.db, trials.as_deref(), now).await
        };
        match told.await {
            Ok(()) if is_news => said = Some((ids, now)),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "what is known of certificates cannot be written, and is kept");
            }
        }
        if tokio::time::timeout(period, shutdown.cancelled())
            .await
            .is_ok()
        {
            return;
        }
    }
}

fn served(shown: &Shown) -> Vec<(ChainRole, Chain)> {
    let next = shown.next().map(|next| (ChainRole::ApiNext, next));
    std::iter::once((ChainRole::Api, shown.present()))
        .chain(next)
        .collect()
}

async fn say(
    conn: &mut Conn,
    served: &[(ChainRole, Chain)],
    now: DateTime<Utc>,
) -> ostiary_store::Result<()> {
    for (role, chain) in served {
        let pem = certificates::to_pem(&chain.certificates);
        store::put_served(conn, *role, &chain.id.0, &pem, now).await?;
    }
    Ok(())
}

fn measure(served: &[(ChainRole, Chain)], now: DateTime<Utc>) {
    for (role, chain) in served {
        certificates::measure(role.as_str(), &chain.certificates, now);
    }
}

async fn tell_refusals(
    db: &Db,
    trials: Option<&Trials>,
    now: DateTime<Utc>,
) -> ostiary_store::Result<()> {
    let Some(trials) = trials else {
        return Ok(());
    };
    let refusals = trials.take_refusals();
    if refusals.is_empty() {
        return Ok(());
    }
    let refused: Vec<Refused> = refusals
        .iter()
        .map(|refusal| counted(refusal, now))
        .collect();
    let written = async {
        let mut tx = db.begin().await?;
        store::add_refused(&mut tx, &refused).await?;
        Db::commit(tx).await
    };
    let written = written.await;
    if written.is_err() {
        trials.put_back(refusals);
    }
    written
}

fn counted(refusal: &Refusal, now: DateTime<Utc>) -> Refused {
    Refused {
        address: refusal.address.to_canonical(),
        fingerprint: refusal.chain.0,
        refusals: 1,
        last_refused_at: now,
        last_error: refusal.said.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_noted_once_an_hour_for_each_chain() {
        let accepted = AcceptedChains::default();
        let node = NodeId(uuid::Uuid::from_u128(7));
        let (one, other) = (ChainId([1; 32]), ChainId([2; 32]));
        let at = |minutes| DateTime::UNIX_EPOCH + TimeDelta::days(1) + TimeDelta::minutes(minutes);
        let noted = || accepted.noted.lock().unwrap().drain().count();
        accepted.note(node, None, at(0));
        assert_eq!(noted(), 0);
        accepted.note(node, Some(one), at(0));
        accepted.note(node, Some(one), at(30));
        accepted.note(node, Some(other), at(30));
        assert_eq!(noted(), 2);
        accepted.note(node, Some(one), at(59));
        assert_eq!(noted(), 0);
        accepted.note(node, Some(one), at(60));
        assert_eq!(noted(), 1);
    }
}
