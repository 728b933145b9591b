//! What the handlers share: a request taken apart, and its node found.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use ostiary_boot::http::{Peer, client_ip};
use ostiary_domain::osquery::OsqueryVersion;
use ostiary_store::node_keys::KnownNode;

use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Caller;
use crate::error::{Error, Result};

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    pub(super) ip: Option<IpAddr>,
    pub(super) client_version: String,
}

impl Head {
    /// Splits a request.
    pub(super) fn of(app: &App, request: Request) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>();
        let ip = peer.map(|peer| {
            client_ip(
                peer.address.ip(),
                &parts.headers,
                &app.options.trusted_proxies,
            )
        });
        let client_version = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .and_then(OsqueryVersion::from_user_agent)
            .map(|version| version.to_string())
            .unwrap_or_default();
        (
            Self {
                headers: parts.headers,
                ip,
                client_version,
            },
            body,
        )
    }

    /// The key of `Authorization: NodeKey …`, sent from osquery 5.23.0 on.
    pub(super) fn key(&self) -> Option<&str> {
        self.headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("NodeKey ")
            .map(str::trim)
    }

    /// Reads a body that is never large.
    pub(super) async fn read_small(&self, app: &App, body: Body) -> Result<Read> {
        let bound = app.options.small_max_bytes;
        let read = body::read(
            &self.headers,
            body,
            Bounds {
                sent: bound,
                inflated: bound,
            },
            &app.room,
            false,
        )
        .await?;
        if read.beyond_bounds {
            Err(Error::TooLarge)
        } else {
            Ok(read)
        }
    }

    /// Finds the node of a key.
    pub(super) async fn authenticate(
        &self,
        app: &App,
        key: &str,
    ) -> Result<(Caller, Arc<KnownNode>)> {
        let (hash, node) = app
            .within_time(app.nodes.authenticate(&app.db, key))
            .await?;
        if let Some(other) = self.key().filter(|other| *other != key) {
            // The body has the word; the header is a newer client's repetition of it.
            tracing::debug!(node.id = %node.id, empty = other.is_empty(), "node key of header and body differ");
        }
        let caller = Caller {
            node: node.id,
            key: hash,
            ip: self.ip,
            client_version: self.client_version.clone(),
        };
        Ok((caller, node))
    }
}

/// Above this a body is worth a thread of its own: while one is parsed, nobody else is served on the thread.
const LARGE: usize = 256 * 1024;

/// Runs work on a body, off the threads that serve requests if it is large, and gives the body back with the result.
pub(super) async fn off_thread<T: Send + 'static>(
    read: Read,
    work: impl FnOnce(&Read) -> T + Send + 'static,
) -> Result<(Read, T)> {
    if read.bytes.len() < LARGE {
        let result = work(&read);
        return Ok((read, result));
    }
    let work = move || {
        let result = work(&read);
        (read, result)
    };
    // It only fails when the work panics, which the panic hook has told.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Internal)
}
