//! Sealing: what Postgres keeps but must not be able to tell (enroll secrets, destinations' passwords and URLs).
//!
//! A [`Key`] is 32 random bytes in the settings. From it two keys are derived by HKDF-SHA-256, one to seal (AES-256-GCM, a random
//! nonce before the text, the purpose as associated data) and one to find (HMAC-SHA-256 of an enroll secret). The api holds only
//! the key of enroll secrets; that of destinations is another.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use rand::TryRngCore as _;
use serde::Deserialize;
use sha2::Sha256;

const NONCE_BYTES: usize = 12;

/// A key of the settings: 64 hexadecimal digits.
#[derive(Clone)]
pub struct Key {
    seal: [u8; 32],
    find: [u8; 32],
}

/// Why something sealed cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed with another key, or damaged")]
pub struct CannotOpen;

impl Key {
    /// Takes the bytes of a key.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        let derive = |purpose: &[u8]| {
            let mut key = [0; 32];
            Hkdf::<Sha256>::new(Some(b"ostiary"), bytes)
                .expand(purpose, &mut key)
                .expect("32 bytes are not too many");
            key
        };
        Self {
            seal: derive(b"seal"),
            find: derive(b"find"),
        }
    }

    /// Seals a text for a purpose; only the same purpose opens it.
    #[must_use]
    pub fn seal(&self, purpose: &str, text: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; NONCE_BYTES];
        rand::rngs::OsRng
            .try_fill_bytes(&mut sealed)
            .expect("the operating system has randomness");
        let payload = Payload {
            msg: text,
            aad: purpose.as_bytes(),
        };
        let body = self
            .cipher()
            .encrypt(Nonce::from_slice(&sealed), payload)
            .expect("the text is not too long");
        sealed.extend(body);
        sealed
    }

    /// Opens what was sealed for this purpose.
    ///
    /// # Errors
    /// It was sealed with another key or for another purpose, or was changed since.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(CannotOpen)?;
        let payload = Payload {
            msg: body,
            aad: purpose.as_bytes(),
        };
        self.cipher()
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| CannotOpen)
    }

    /// By which a secret is found without being stored.
    #[must_use]
    pub fn hmac(&self, secret: &[u8]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as hmac::Mac>::new_from_slice(&self.find).expect("any length will do");
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.seal.into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| {
            serde::de::Error::custom(
                "a key is 64 hexadecimal digits; `openssl rand -hex 32` makes one",
            )
        })?;
        Ok(Self::new(&bytes))
    }
}

/// Random bytes as URL-safe text without padding, for node keys, enroll secrets and tokens.
#[must_use]
pub fn random_token<const BYTES: usize>() -> String {
    use base64::Engine as _;
    let mut bytes = [0; BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system has randomness");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_purpose_open_what_was_sealed() {
        let key = Key::new(&[1; 32]);
        let sealed = key.seal("destination", b"https://hooks.example.com/secret");
        assert_eq!(
            key.open("destination", &sealed).unwrap(),
            b"https://hooks.example.com/secret"
        );
        assert_eq!(key.open("enroll_secret", &sealed), Err(CannotOpen));
        assert_eq!(
            Key::new(&[2; 32]).open("destination", &sealed),
            Err(CannotOpen)
        );
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(key.open("destination", &changed), Err(CannotOpen));
        assert_eq!(key.open("destination", b"short"), Err(CannotOpen));
        assert_ne!(
            sealed,
            key.seal("destination", b"https://hooks.example.com/secret")
        );
    }

    #[test]
    fn a_secret_is_found_by_an_hmac_that_another_key_would_not_give() {
        assert_eq!(Key::new(&[1; 32]).hmac(b"s"), Key::new(&[1; 32]).hmac(b"s"));
        assert_ne!(Key::new(&[1; 32]).hmac(b"s"), Key::new(&[2; 32]).hmac(b"s"));
    }

    #[test]
    fn a_token_is_url_safe_and_long() {
        let token = random_token::<32>();
        assert_eq!(token.len(), 43);
        assert!(
            token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        );
    }
}
