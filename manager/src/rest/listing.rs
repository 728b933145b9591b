//! What all lists have in common: how they are asked for, and how they are answered.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ostiary_store::page::PageRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The query string, with an error in our own form.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: for<'de> Deserialize<'de> + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Error::Refused(error.body_text())),
        }
    }
}

/// Paging of every list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Paging {
    pub(crate) limit: Option<i64>,
    pub(crate) after: Option<String>,
}

impl Paging {
    /// What the store is asked for; `parts` is how many parts a cursor has.
    pub(crate) fn request<const PARTS: usize>(self) -> Result<PageRequest> {
        let request = PageRequest {
            after: self.after.filter(|after| !after.is_empty()),
            limit: self.limit,
        };
        if request.limit.is_some_and(|limit| limit < 1) {
            return Err(Error::field("limit", "limit must be 1 or more."));
        }
        if request.after.is_some() && request.key::<PARTS>().is_none() {
            return Err(Error::field(
                "after",
                "after must be the next of the page before.",
            ));
        }
        Ok(request)
    }
}

/// A list as it is answered.
pub(crate) fn listed<T: Serialize>(items: &[T], next: Option<&str>) -> Json<Value> {
    Json(json!({"items": items, "next": next}))
}

/// Whatever does not exist under `/api/v1`.
pub(crate) async fn not_found() -> Error {
    Error::NotFound
}
