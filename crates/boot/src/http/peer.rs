//! Who is at the other end of a connection, as handlers find it in a request's extensions.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use crate::certificates::ChainId;

/// The other end of the connection a request came by.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; behind a proxy that of the proxy, see [`client_ip`].
    pub address: SocketAddr,
    /// The certificate it proved to hold, if it was asked and has one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The chain of ours that it has accepted, so that it trusts the root of that; `None` without TLS, or for a resumed session.
    pub accepted: Option<ChainId>,
}

/// A client's certificate, verified by the hand-shake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject as text, e.g. `CN=host-42`; empty when it cannot be read.
    pub subject: String,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
}

impl ClientCertificate {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let subject = x509_parser::parse_x509_certificate(certificate)
            .map(|(_, parsed)| parsed.subject().to_string())
            .unwrap_or_default();
        Self {
            subject,
            fingerprint: hex::encode(Sha256::digest(certificate)),
        }
    }
}

/// The client's address. `X-Forwarded-For` is believed only as far as its links are trusted proxies: it is read from the right,
/// since everything left of the first stranger is that stranger's word.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| {
        trusted_proxies
            .iter()
            .any(|net| net.contains(&ip.to_canonical()))
    };
    let mut client = peer.to_canonical();
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in forwarded.into_iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        let Ok(ip) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        client = ip.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_is_believed_only_from_a_trusted_proxy() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let cases = [
            ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
            ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
            ("10.0.0.1", "rubbish", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::1", "2001:db8::7", "2001:db8::7"),
        ];
        for (peer, header, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", header.parse().unwrap());
            assert_eq!(
                client_ip(peer.parse().unwrap(), &headers, &trusted),
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {header}"
            );
        }
    }
}
