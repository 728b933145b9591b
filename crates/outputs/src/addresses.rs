//! Which addresses may be called. A destination is typed in by a person and may point anywhere: without this check it could make us
//! knock on doors of our own network (cloud metadata, databases, other admin pages).
//!
//! The check is made on the address that is then connected to, so a name that resolves differently a moment later (rebinding)
//! gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::SendError;

pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings `[outputs]`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// May destinations lie on loopback, link-local and private addresses? Off unless a mail server or webhook of your own network
    /// is to be reached.
    pub allow_private_addresses: bool,
}

impl Options {
    /// May this address be connected to?
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        self.allow_private_addresses || is_public(address)
    }

    /// Resolves a host and keeps what may be called.
    ///
    /// # Errors
    /// The name does not resolve (worth another try), or only to addresses that may not be called (not worth one).
    pub(crate) async fn resolve(self, host: &str, port: u16) -> Result<Vec<SocketAddr>, SendError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port)));
        let found: Vec<SocketAddr> = lookup
            .await
            .map_err(|_| SendError::retry(format!("looking up {host} takes too long")))?
            .map_err(|error| SendError::retry(format!("{host} does not resolve: {error}")))?
            .collect();
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|address| self.allows(address.ip()))
            .collect();
        match (found.is_empty(), allowed.is_empty()) {
            (true, _) => Err(SendError::retry(format!("{host} has no address"))),
            (false, true) => Err(SendError::refused(format!(
                "{host} lies on a private address, which the settings do not allow ([outputs] allow_private_addresses)"
            ))),
            (false, false) => Ok(allowed),
        }
    }
}

/// Is the address one of the open Internet? Addresses that carry an IPv4 address inside are judged by it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the IANA registry of special-purpose IPv4 addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// By the IANA registry of special-purpose IPv6 addresses: global unicast is 2000::/3, and some of it is not open either.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0x0db8 | 0x0000..=0x01ff, ..] => false,
        [first, ..] => (first & 0xe000) == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_may_be_called() {
        let closed = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::7f00:1",
        ];
        for address in closed {
            assert!(
                !Options::default().allows(address.parse().unwrap()),
                "{address}"
            );
            assert!(
                Options {
                    allow_private_addresses: true
                }
                .allows(address.parse().unwrap()),
                "{address}"
            );
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(
                Options::default().allows(address.parse().unwrap()),
                "{address}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inward_is_refused_for_good() {
        let refused = Options::default().resolve("localhost", 25).await;
        assert!(
            matches!(refused, Err(SendError::Refused { .. })),
            "{refused:?}"
        );
    }
}
