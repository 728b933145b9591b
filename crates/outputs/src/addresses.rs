//! Which addresses may be called. A destination is typed in by a person and may point anywhere: without this check it could make us
//! knock on doors of our own network (cloud metadata, databases, other admin pages).
//!
//! Only the judgement is made here; [`Connector`](crate::Connector) sees to it that nothing is connected to but what was judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

/// Settings `[outputs]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// May destinations lie on any loopback, link-local or private address? Better off, with the few that are needed named in
    /// `allowed_networks`.
    pub allow_private_addresses: bool,
    /// Networks of ours that may be called though they are not of the open Internet.
    #[serde(default)]
    pub allowed_networks: Vec<IpNet>,
}

impl Options {
    /// May this address be connected to? An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_private_addresses
            || is_public(address)
            || self
                .allowed_networks
                .iter()
                .any(|network| network.contains(&address))
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
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// By the IANA registry of special-purpose IPv6 addresses: global unicast is 2000::/3, and some of it is not open either. NAT64's own
/// prefix (RFC 6052) and 6to4 (RFC 3056) carry an IPv4 address; NAT64 of a network's own choice lies in 64:ff9b:1::/48 (RFC 8215),
/// which is not global, and Teredo in 2001::/32.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0x0db8 | 0x0000..=0x01ff, ..] => false,
        [0x3fff, 0x0000..=0x0fff, ..] => false,
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
            "192.88.99.1",
            "::1",
            "::",
            "fe80::1",
            "fec0::1",
            "fd00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "::7f00:1",
        ];
        for address in closed {
            let address: IpAddr = address.parse().unwrap();
            assert!(!Options::default().allows(address), "{address}");
            let open = Options {
                allow_private_addresses: true,
                ..Options::default()
            };
            assert!(open.allows(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(
                Options::default().allows(address.parse().unwrap()),
                "{address}"
            );
        }
    }

    #[test]
    fn networks_of_ours_are_allowed_one_by_one() {
        let options: Options = serde_json::from_str(
            r#"{"allow_private_addresses": false, "allowed_networks": ["10.1.0.0/16", "fd00:1::/32"]}"#,
        )
        .unwrap();
        for (address, is_allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd00:1::7", true),
            ("10.2.2.3", false),
            ("127.0.0.1", false),
            ("64:ff9b::a01:203", false),
        ] {
            assert_eq!(
                options.allows(address.parse().unwrap()),
                is_allowed,
                "{address}"
            );
        }
    }
}
