//! Passwords: argon2id with the parameters of RFC 9106's second recommendation scaled to OWASP's minimum (19 MiB, 2 passes), on
//! threads that may block, and a few at a time: each takes the memory of a small cache.

use std::sync::LazyLock;

use argon2::password_hash::{
    PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString, rand_core::OsRng,
};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// Verified against for users that do not exist, so that both cases take the same time.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_now("nobody has this password"));

fn argon2() -> Argon2<'static> {
    let params =
        Params::new(19 * 1024, 2, 1, None).expect("the parameters are within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_now(password: &str) -> String {
    let salt = SaltString::generate(&mut OsRng);
    argon2()
        .hash_password(password.as_bytes(), &salt)
        .expect("the salt and the length fit")
        .to_string()
}

/// Hashes a password.
///
/// # Errors
/// The runtime is stopping.
pub async fn hash_password(password: String) -> Result<String> {
    on_a_thread(move || hash_now(&password)).await
}

/// Does the password fit the hash? Without a hash (no such user, no password) it takes as long and says no.
///
/// # Errors
/// The runtime is stopping.
pub async fn verify_password(password: String, hash: Option<String>) -> Result<bool> {
    on_a_thread(move || {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.clone());
        let fits = PasswordHash::new(&hash)
            .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok());
        fits && exists
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _turn = AT_ONCE.acquire().await.expect("nobody closes it");
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Internal(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_fits() {
        let hash = hash_password("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(
            verify_password("correct horse".into(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !verify_password("wrong horse".into(), Some(hash))
                .await
                .unwrap()
        );
        assert!(
            !verify_password("nobody has this password".into(), None)
                .await
                .unwrap()
        );
    }
}
