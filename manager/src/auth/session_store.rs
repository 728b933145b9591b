//! Where tower-sessions keeps its records: our table `sessions`, which holds only the hash of the cookie's value.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ostiary_domain::ids::UserId;
use ostiary_store::sessions::{self, SessionRecord};
use sha2::{Digest as _, Sha256};
use tower_sessions::SessionStore;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};

use crate::state::App;

/// Sessions in Postgres.
#[derive(Debug, Clone)]
pub struct PostgresSessions {
    app: App,
}

impl PostgresSessions {
    /// Sessions of this manager.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

/// By which a session is found.
pub(super) fn hash_id(id: &Id) -> [u8; 32] {
    Sha256::digest(id.to_string().as_bytes()).into()
}

fn to_row(record: &Record) -> Result<(Option<UserId>, SessionRecord)> {
    let data =
        serde_json::to_value(&record.data).map_err(|error| Error::Encode(error.to_string()))?;
    let user = record
        .data
        .get(super::session::USER_ID)
        .and_then(|id| id.as_str())
        .and_then(|id| id.parse().ok());
    let expires_at = DateTime::<Utc>::from_timestamp(record.expiry_date.unix_timestamp(), 0)
        .ok_or_else(|| Error::Encode("the session ends beyond all times".to_owned()))?;
    Ok((user, SessionRecord { data, expires_at }))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn backend(error: ostiary_store::Error) -> Error {
    Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for PostgresSessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // 128 random bits: a clash would be refused by the primary key.
        let (user, row) = to_row(record)?;
        let mut conn = self.app.db.acquire().await.map_err(backend)?;
        sessions::insert(&mut conn, &hash_id(&record.id), user, &row, self.app.now())
            .await
            .map_err(backend)
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let (user, row) = to_row(record)?;
        let mut conn = self.app.db.acquire().await.map_err(backend)?;
        sessions::update(&mut conn, &hash_id(&record.id), user, &row)
            .await
            .map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let mut conn = self.app.db.acquire().await.map_err(backend)?;
        let Some(row) = sessions::find(&mut conn, &hash_id(id), self.app.now())
            .await
            .map_err(backend)?
        else {
            return Ok(None);
        };
        let data =
            serde_json::from_value(row.data).map_err(|error| Error::Decode(error.to_string()))?;
        let expiry_date = time::OffsetDateTime::from_unix_timestamp(row.expires_at.timestamp())
            .map_err(|error| Error::Decode(error.to_string()))?;
        Ok(Some(Record {
            id: *id,
            data,
            expiry_date,
        }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let mut conn = self.app.db.acquire().await.map_err(backend)?;
        sessions::delete(&mut conn, &hash_id(id))
            .await
            .map_err(backend)
    }
}
