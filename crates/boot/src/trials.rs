//! The certificate on trial: which connections are shown it, and who refused.
//!
//! Nodes trust the roots in their bundle and nothing else, and have no second way to us: after a change of the CA a node whose bundle
//! lacks the new root is lost until somebody goes there. So the next chain is tried first, on a few connections. A trial costs no
//! request: after a TLS failure osqueryd sends the same request once more at once, on a new connection
//! (`osquery/remote/http_client.cpp::sendHTTPRequest`), and that is shown the chain in use again, since an address gets one trial in
//! a while. Who refuses is known by address only, because the hand-shake failed; who accepts is known by its node key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::AlertDescription;

use crate::certificates::ChainId;

/// Addresses that are remembered. Beyond it all are forgotten, which only makes trials more frequent for a moment.
const MOST_ADDRESSES: usize = 200_000;

/// Refusals that wait to be taken.
const MOST_REFUSALS: usize = 10_000;

/// A client that would not go on when it was shown the chain on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it came from: a node, or a whole office behind one address.
    pub address: IpAddr,
    /// What it was shown.
    pub chain: ChainId,
    /// What it said, e.g. `UnknownCA`.
    pub said: String,
}

/// Trials of one listener.
#[derive(Debug)]
pub struct Trials {
    pause: Duration,
    last: Mutex<HashMap<IpAddr, Instant>>,
    refusals: Mutex<Vec<Refusal>>,
}

impl Trials {
    /// One trial per address in so long.
    #[must_use]
    pub fn new(pause: Duration) -> Self {
        Self {
            pause,
            last: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    /// Shall this connection be shown the chain on trial? If so, the address has its pause.
    pub(crate) fn begin(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .get(&address)
            .is_some_and(|last| now.duration_since(*last) < self.pause)
        {
            return false;
        }
        if last.len() >= MOST_ADDRESSES {
            last.clear();
        }
        last.insert(address, now);
        true
    }

    /// Notes why a trial failed, if the client said that it was the certificate. Scanners just go away.
    pub(crate) fn note_failure(&self, address: IpAddr, chain: ChainId, error: &std::io::Error) {
        let Some(said) = refusal_in(error) else {
            return;
        };
        metrics::counter!("ostiary_tls_trials_refused_total").increment(1);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() < MOST_REFUSALS {
            refusals.push(Refusal {
                address,
                chain,
                said,
            });
        }
    }

    /// Takes the refusals noted so far.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives refusals back that could not be stored.
    pub fn put_back(&self, mut older: Vec<Refusal>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        older.truncate(MOST_REFUSALS.saturating_sub(refusals.len()));
        refusals.append(&mut older);
    }
}

fn refusal_in(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            // A new root of the same name: its signature cannot be checked by the old one.
            | AlertDescription::DecryptError),
        ) => Some(format!("{alert:?}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_pause_so_that_the_second_attempt_gets_the_chain_in_use() {
        let trials = Trials::new(Duration::from_secs(3_600));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(trials.begin(one));
        assert!(!trials.begin(one));
        assert!(trials.begin(other));
        let trials = Trials::new(Duration::ZERO);
        assert!(trials.begin(one) && trials.begin(one));
    }

    #[test]
    fn only_what_a_client_says_of_the_certificate_is_a_refusal() {
        let trials = Trials::new(Duration::ZERO);
        let address = IpAddr::from([10, 0, 0, 1]);
        let chain = ChainId([7; 32]);
        let said = |alert| std::io::Error::other(rustls::Error::AlertReceived(alert));
        trials.note_failure(address, chain, &said(AlertDescription::CloseNotify));
        trials.note_failure(address, chain, &std::io::ErrorKind::UnexpectedEof.into());
        assert!(trials.take_refusals().is_empty());
        trials.note_failure(address, chain, &said(AlertDescription::UnknownCA));
        let refusals = trials.take_refusals();
        assert_eq!(refusals[0].said, "UnknownCA");
        trials.put_back(refusals);
        assert_eq!(trials.take_refusals().len(), 1);
    }
}
