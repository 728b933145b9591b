//! The only way to fail towards osqueryd, which looks at no HTTP status: it takes an empty body, and any JSON object without `error`
//! and without `node_invalid: true`, for a success (`osquery/remote/transports/tls.cpp`, `remote/utility.h::go`).
//!
//! # Trouble × endpoint → answer
//!
//! | trouble | status | `/enroll` | `/config` | `/log` | `/distributed/read` | `/distributed/write` |
//! |---|---|---|---|---|---|---|
//! | malformed HTTP, head too large or too slow, too many connections | – | socket closed unanswered | ← | ← | ← | ← |
//! | header `Expect` | 417 | `error` | `error` | `error` | `error` | `error` |
//! | unknown path / wrong method | 404 / 405 | `error` | `error` | `error` | `error` | `error` |
//! | no body, bad JSON, root not an object, no key to be read | 400 | `error` | `error` | `error` | `error` | `error` |
//! | the same, but the key of the header is in force, or stands beside lines that are no JSON (`/log`) or behind the answers (`/distributed/write`) | 200 | – | `error` (400) | kept as unreadable, accepted | `error` (400) | kept as unreadable, accepted |
//! | malformed at `/log` or `/distributed/write`, and the key of the header, or one that can be read in the body, is unknown or revoked | 401 | – | – | `node_invalid: true` alone | – | `node_invalid: true` alone |
//! | a body that carries `data` or `log_type`, or `queries`, where none of it is taken | 400 | – | `error` | – | `error` | `error` (`data`, `log_type`) |
//! | body cut off, corrupt or truncated gzip | 400 | `error` | `error` | `error` | `error` | `error` |
//! | unknown `Content-Encoding` | 415 | `error` | `error` | `error` | `error` | `error` |
//! | body too slow | 408 | `error` | `error` | `error` | `error` | `error` |
//! | too large as sent or inflated (bomb) | 413 | `error` | `error` | `error`; after some refusals what can be read is stored, the rest counted as lost, accepted | `error` | `error`; after some refusals accepted, the beginning kept as unreadable |
//! | enroll secret missing, unknown, revoked, expired, used up; node disabled | 403 | `node_invalid: true` and `error`, no key | – | – | – | – |
//! | key empty, unknown or revoked, says Postgres | 401 | – | `node_invalid: true` alone | ← | ← | ← |
//! | the same, beyond so many a second, or asked again within seconds | 503 | – | `error` | ← | ← | ← |
//! | node disabled, or not approved | 403 | (above) | `error`, keeps its key | ← | ← | ← |
//! | node waits for an approval | 403 | a key (200) | `error`, keeps its key and its buffer | ← | ← | ← |
//! | too many enrollments from one address, by one secret, of one machine | 429 | `error`, no key | – | – | – | – |
//! | no header `Authorization: NodeKey`, and the settings demand it | 401 | – | `error`, unread | ← | ← | ← |
//! | key of the header empty, unknown, revoked or barred, and the body large or of unknown size | as for such keys | – | as for such keys, unread | ← | ← | ← |
//! | body whole and authenticated, but its content unusable (no `data`, unknown `log_type`, unknown ids) | 200 | – | – | kept as unreadable, accepted | – | accepted |
//! | Postgres down, hanging or slow | 503 | `error` | `error` unless in memory | `error` | `error` if there is work, else `{}` | `error` |
//! | Redis down | 200 | no effect | no effect | no effect | no effect | no effect |
//! | too much at once | 503 | `error: busy` | ← | ← | ← | ← |
//! | panic | 500 | `error` | `error` | `error` | `error` | `error` |
//!
//! What is too large is counted by node and stream: `/log` per type, and `/distributed/write`.
//!
//! The carve endpoints differ: osqueryd reads neither `error` nor `node_invalid` there. A start fails for want of `session_id`, a block
//! only by a body that is no JSON, so its failures are said in words ([`in_words`]), those of unknown paths that look like one's, too.
//!
//! | trouble | status | `/carve/start` | `/carve/continue` |
//! |---|---|---|---|
//! | all of the above that is not named below | as above | `error` | words |
//! | carves switched off, not from this node, beyond a limit, numbers that do not fit each other, the same carve begun otherwise | 403 | `error` | words (switched off) |
//! | ids, numbers or base64 that are none | 400 | `error` | words |
//! | session unknown or another node's, carve given up, no such block, a block of another length, or with other bytes than before | 409 | – | words |
//! | key empty, unknown or revoked | 401 | `node_invalid: true` alone, as everywhere | words (key of the header) |
//! | key with which the carve began revoked; node disabled, waiting or refused; carves denied meanwhile | 401 / 403 | – | words, judged on every block |
//! | a start or a block that comes again | 200 | a further session of the same carve | stored already |
//! | Postgres down, hanging or slow | 503 | `error` | words |
//!
//! `node_invalid: true` never comes with `error` on the four keyed endpoints: before osquery 2.1.0 `error` wins there and the node
//! would never enroll again. On `/enroll` only the absence of a key counts.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ostiary_domain::carve::{BlockRefusal, Refusal};
use ostiary_domain::osquery::{
    CarveRequestError, EnrollRefused, NodeInvalid, Refused, RequestError,
};

/// Why a request is not answered as it hoped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such endpoint.
    #[error("there is nothing here")]
    UnknownPath,
    /// The endpoint takes POST and PUT only.
    #[error("this method is not allowed here")]
    WrongMethod,
    /// The body cannot be read as what it should be; no node key comes out of it.
    #[error("{0}")]
    Unreadable(#[from] RequestError),
    /// The body is not the gzip it claims to be.
    #[error("the body is not readable as gzip")]
    BadGzip,
    /// A `Content-Encoding` other than gzip.
    #[error("only gzip is understood as content encoding")]
    UnknownEncoding,
    /// The connection broke before the body was there.
    #[error("the body was cut off")]
    CutOff,
    /// The body took too long.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The body exceeds the endpoint's limits.
    #[error("the body is too large")]
    TooLarge,
    /// The node key is positively unknown or revoked: the node must enroll again.
    #[error("the node key is unknown")]
    NodeInvalid,
    /// An admin has switched the node off. It keeps its key and its buffer.
    #[error("this node is disabled")]
    Disabled,
    /// The node waits for an approval. It keeps its key and its buffer.
    #[error("this node waits for an approval")]
    Waiting,
    /// An admin did not approve of the node. It keeps its key, which is good for nothing.
    #[error("this node was not approved")]
    Refused,
    /// The settings demand that a node says in a header who it is.
    #[error("the header Authorization: NodeKey is required")]
    HeaderRequired,
    /// Too many attempts from one address, by one secret or of one machine.
    #[error("too many attempts")]
    TooMany,
    /// No node key is given for this enrollment.
    #[error("{0}")]
    EnrollRefused(&'static str),
    /// A body of the carve endpoints cannot be meant.
    #[error(transparent)]
    BadCarve(#[from] CarveRequestError),
    /// A carve does not begin.
    #[error("{0}")]
    CarveRefused(#[from] Refusal),
    /// A block is not taken.
    #[error("{0}")]
    BlockRefused(#[from] BlockRefusal),
    /// Too much at once.
    #[error("busy")]
    Busy,
    /// Something that we lean on does not answer.
    #[error("temporarily not available")]
    Unavailable,
    /// Postgres ended our transaction because it and another waited for each other.
    #[error("temporarily not available")]
    Deadlock,
    /// A defect of ours.
    #[error("internal error")]
    Internal,
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The honest status, for proxies and people; osqueryd looks at none.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unreadable(_) | Self::BadCarve(_) | Self::BadGzip | Self::CutOff => {
                StatusCode::BAD_REQUEST
            }
            Self::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NodeInvalid | Self::HeaderRequired => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Disabled
            | Self::Waiting
            | Self::Refused
            | Self::EnrollRefused(_)
            | Self::CarveRefused(_) => StatusCode::FORBIDDEN,
            Self::BlockRefused(_) => StatusCode::CONFLICT,
            Self::Busy | Self::Unavailable | Self::Deadlock => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ostiary_store::Error> for Error {
    fn from(error: ostiary_store::Error) -> Self {
        if error.is_deadlock() {
            tracing::info!(%error, "a request met another one");
            Self::Deadlock
        } else if error.is_temporary() {
            tracing::warn!(%error, "a request could not be answered");
            Self::Unavailable
        } else {
            tracing::error!(%error, "a request could not be answered");
            Self::Internal
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        metrics::counter!("ostiary_api_errors_total", "status" => status.as_u16().to_string())
            .increment(1);
        let said = Said(self.to_string());
        let mut response = match self {
            Self::NodeInvalid => (status, Json(NodeInvalid::default())).into_response(),
            Self::EnrollRefused(reason) => {
                (status, Json(EnrollRefused::new(reason))).into_response()
            }
            other => (
                status,
                Json(Refused {
                    error: other.to_string(),
                }),
            )
                .into_response(),
        };
        response.extensions_mut().insert(said);
        response
    }
}

/// What an answer says went wrong, kept beside its body.
#[derive(Debug, Clone)]
struct Said(String);

/// Says a failure in words instead of JSON: for blocks of carves, of which osqueryd takes any JSON, and an empty body, for "stored".
pub async fn in_words(response: Response) -> Response {
    let status = response.status();
    if status.is_success() {
        return response;
    }
    let said = response
        .extensions()
        .get()
        .map_or("failed", |Said(said)| said.as_str());
    (status, format!("refused: {said}\n")).into_response()
}
