//! Addresses, routes and sockets.

use super::Host;
use super::system::listener_pid;
use crate::drift::Drift;
use crate::identity::Platform;
use crate::value::{Row, row};

fn port(pid: i64, port: i64, protocol: i64, address: &str, path: &str) -> Row {
    row! {
        "pid" => pid, "port" => port, "protocol" => protocol, "family" => 2_i64, "address" => address,
        "fd" => 3 + port % 20, "socket" => port * 1009, "path" => path, "net_namespace" => "4026531992",
    }
}

pub(super) fn listening_ports(host: &Host<'_>) -> Vec<Row> {
    let mut rows = match host.identity.platform {
        Platform::Linux => vec![
            port(412, 22, 6, "0.0.0.0", ""),
            port(530, 80, 6, "0.0.0.0", ""),
            port(530, 443, 6, "0.0.0.0", ""),
        ],
        Platform::Darwin => vec![
            port(333, 5353, 17, "0.0.0.0", ""),
            port(640, 7000, 6, "127.0.0.1", ""),
        ],
        Platform::Windows => vec![
            port(812, 135, 6, "0.0.0.0", ""),
            port(4, 445, 6, "0.0.0.0", ""),
        ],
    };
    if host.has(Drift::ListeningPort) {
        rows.push(port(listener_pid(host), 4444, 6, "0.0.0.0", ""));
    }
    rows
}

fn interface(host: &Host<'_>) -> (&'static str, String, String) {
    let name = match host.identity.platform {
        Platform::Linux => "eth0",
        Platform::Darwin => "en0",
        Platform::Windows => "7",
    };
    let index = host.identity.index;
    let bytes = host.constant(3).to_be_bytes();
    let mac = bytes[3..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":");
    (
        name,
        format!(
            "10.{}.{}.{}",
            index / 62_500 % 250,
            index / 250 % 250,
            index % 250 + 2
        ),
        format!("02:{mac}"),
    )
}

pub(super) fn interface_addresses(host: &Host<'_>) -> Vec<Row> {
    let (name, address, _) = interface(host);
    let loopback = if host.identity.platform == Platform::Windows {
        "1"
    } else {
        "lo"
    };
    [(loopback, "127.0.0.1".to_owned(), "255.0.0.0"), (name, address, "255.255.255.0")]
        .map(|(interface, address, mask)| {
            row! {"interface" => interface, "address" => address, "mask" => mask, "broadcast" => "", "point_to_point" => "", "type" => "manual"}
        })
        .to_vec()
}

pub(super) fn interface_details(host: &Host<'_>) -> Vec<Row> {
    let (name, _, mac) = interface(host);
    let moved = (host.now - host.booted) * 1200;
    vec![row! {
        "interface" => name, "mac" => mac, "type" => 6_i64, "mtu" => 1500_i64, "metric" => 0_i64, "flags" => 4163_i64,
        "ipackets" => moved / 900, "opackets" => moved / 1100, "ibytes" => moved, "obytes" => moved / 2,
        "ierrors" => 0_i64, "oerrors" => 0_i64, "idrops" => 0_i64, "odrops" => 0_i64, "collisions" => 0_i64, "last_change" => -1_i64,
    }]
}

pub(super) fn etc_hosts(host: &Host<'_>) -> Vec<Row> {
    vec![
        row! {"address" => "127.0.0.1", "hostnames" => "localhost"},
        row! {"address" => "127.0.1.1", "hostnames" => &host.identity.hostname},
    ]
}

pub(super) fn routes(host: &Host<'_>) -> Vec<Row> {
    let (name, address, _) = interface(host);
    let gateway = format!(
        "{}.1",
        address.rsplit_once('.').map_or("10.0.0", |(net, _)| net)
    );
    vec![row! {
        "destination" => "0.0.0.0", "netmask" => 0_i64, "gateway" => gateway, "source" => address, "flags" => 0_i64,
        "interface" => name, "mtu" => 1500_i64, "metric" => 100_i64, "type" => "gateway",
    }]
}
