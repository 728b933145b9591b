//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::Request;
use ipnet::IpNet;
use ostiary_boot::http::{Peer, client_ip};

/// The address of the person or program that asks; `X-Forwarded-For` counts only from proxies that the settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub IpAddr);

impl Address {
    /// Of a request. One that came by no connection (in a test) counts as local.
    #[must_use]
    pub fn of(request: &Request, trusted: &[IpNet]) -> Self {
        let peer = request
            .extensions()
            .get::<Peer>()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.address.ip());
        Self(client_ip(peer, request.headers(), trusted))
    }
}
