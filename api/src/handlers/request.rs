//! What the handlers share: a request taken apart, and its node found.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use ostiary_boot::certificates::ChainId;
use ostiary_boot::http::{Peer, client_ip};
use ostiary_domain::enrollment::Standing;
use ostiary_domain::osquery::OsqueryVersion;
use ostiary_store::node_keys::{KeyHash, KnownNode};

use crate::App;
use crate::body::{self, Bounds, Read};
use crate::checkins::Caller;
use crate::error::{Error, Result};
use crate::known_nodes::{admitted, hash_of};
use crate::limits::Network;

/// A body up to this size is read although the key in the header is good for nothing, because the body's key has the last word.
const READ_IN_ANY_CASE: u64 = 64 * 1024;

/// The hash of a key, and whose it is.
type Found = (KeyHash, Result<Arc<KnownNode>>);

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    pub(super) ip: Option<IpAddr>,
    pub(super) client_version: String,
    /// The chain of ours that the client has accepted.
    accepted: Option<ChainId>,
    /// The key of the header, and what was found out about it. Taken by whoever asks first.
    found: Mutex<Option<Found>>,
}

impl Head {
    /// Splits a request of a node that should have a key, and looks at the key of the header before anything is read of the body.
    ///
    /// # Errors
    /// The header is missing and must not be, or its key is good for nothing and the body is large, or of a size that is not told.
    pub(super) async fn admit(app: &App, request: Request) -> Result<(Self, Body)> {
        let (head, body) = Self::of(app, request);
        let Some(key) = head.key().map(str::to_owned) else {
            return if app.options.require_key_header {
                Err(Error::HeaderRequired)
            } else {
                Ok((head, body))
            };
        };
        let from = Network::of(head.ip);
        let identified = app
            .within_time(app.nodes.identify(&app.db, &key, from))
            .await;
        let size = body.size_hint().upper();
        let is_large = size.is_none_or(|size| size > READ_IN_ANY_CASE);
        let found = match identified {
            Ok((_, node)) if is_large => {
                head.admitted(app, &node, hash_of(&key))?;
                Ok(node)
            }
            Err(error) if is_large => {
                metrics::counter!("ostiary_bodies_unread_total").increment(1);
                return Err(error);
            }
            other => other.map(|(_, node)| node),
        };
        let found = Mutex::new(Some((hash_of(&key), found)));
        Ok((Self { found, ..head }, body))
    }

    /// Splits a request.
    pub(super) fn of(app: &App, request: Request) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>();
        let accepted = peer.and_then(|peer| peer.accepted);
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
                accepted,
                found: Mutex::default(),
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

    /// Finds the node of the body's key, which has the word; the header is a newer client's repetition of it.
    pub(super) async fn authenticate(
        &self,
        app: &App,
        key: &str,
    ) -> Result<(Caller, Arc<KnownNode>)> {
        let hash = hash_of(key);
        let found = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (node, header) = match found {
            // Once refused by Postgres, a second look would only find that this is remembered.
            Some((of_header, found)) if of_header == hash => (found?, None),
            header => {
                let from = Network::of(self.ip);
                let identified = app
                    .within_time(app.nodes.identify(&app.db, key, from))
                    .await;
                (identified?.1, header)
            }
        };
        if let Some((_, found)) = header {
            let of_header = found.ok().map(|node| node.id.to_string());
            metrics::counter!("ostiary_key_disagreements_total").increment(1);
            tracing::info!(node.id = %node.id, header.node.id = of_header, "the node keys of header and body differ; the body's holds");
        }
        let caller = self.admitted(app, &node, hash)?;
        Ok((caller, node))
    }

    /// Lets only nodes in force do anything; that one which waits was here is noted.
    fn admitted(&self, app: &App, node: &KnownNode, key: KeyHash) -> Result<Caller> {
        app.accepted.note(node.id, self.accepted, app.clock.now());
        let caller = Caller {
            node: node.id,
            key,
            ip: self.ip,
            client_version: self.client_version.clone(),
        };
        if node.standing == Standing::Waiting {
            app.checkins.note_seen(&caller, app.clock.now());
        }
        admitted(node)?;
        Ok(caller)
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
