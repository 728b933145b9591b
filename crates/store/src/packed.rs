//! Texts that are stored compressed: rows of events and present rows.
//!
//! The first byte names the codec, so that a better one can come without rewriting what is there: 1 is zstd, level 1, of the text.
//! Compressing here and not in Postgres is the outcome of a measurement (ARCHITECTURE.md, decisions): Postgres compresses only
//! tuples over some 2 kB, and most executions are smaller.

use std::ops::Deref;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};

const ZSTD: u8 = 1;
const LEVEL: i32 = 1;
/// No row set can be larger than the largest body that the api takes.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// A text that is `bytea` in Postgres. It derefs to the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed(pub String);

impl Packed {
    fn pack(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut packed = vec![ZSTD];
        zstd::stream::copy_encode(self.0.as_bytes(), &mut packed, LEVEL)
            .expect("writing to memory cannot fail");
        packed
    }

    fn unpack(bytes: &[u8]) -> Result<Self, BoxDynError> {
        match bytes.split_first() {
            None => Ok(Self::default()),
            Some((&ZSTD, body)) => {
                let mut text = String::new();
                let limit = u64::try_from(MAX_BYTES)?;
                let mut reader = std::io::Read::take(zstd::stream::Decoder::new(body)?, limit);
                std::io::Read::read_to_string(&mut reader, &mut text)?;
                Ok(Self(text))
            }
            Some((codec, _)) => Err(format!(
                "rows are packed with codec {codec}, which this release does not know"
            )
            .into()),
        }
    }
}

impl Deref for Packed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Type<Postgres> for Packed {
    fn type_info() -> PgTypeInfo {
        <Vec<u8> as Type<Postgres>>::type_info()
    }
}

impl sqlx::postgres::PgHasArrayType for Packed {
    fn array_type_info() -> PgTypeInfo {
        <Vec<u8> as sqlx::postgres::PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Packed {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <Vec<u8> as Encode<'_, Postgres>>::encode(self.pack(), buffer)
    }
}

impl Decode<'_, Postgres> for Packed {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Self::unpack(<&[u8] as Decode<'_, Postgres>>::decode(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_survives_and_gets_smaller() {
        let text = r#"[{"action":"added","columns":{"path":"/usr/bin/é","port":"22"}}]"#.repeat(20);
        let packed = Packed(text.clone()).pack();
        assert!(packed.len() * 4 < text.len());
        assert_eq!(&*Packed::unpack(&packed).unwrap(), text);
        assert_eq!(
            Packed::unpack(&Packed::default().pack()).unwrap(),
            Packed::default()
        );
    }

    #[test]
    fn an_unknown_codec_is_said_and_not_guessed() {
        let error = Packed::unpack(&[9, 1, 2, 3]).unwrap_err();
        assert!(error.to_string().contains("codec 9"), "{error}");
    }
}
