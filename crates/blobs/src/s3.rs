//! Blobs in a bucket.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;

use crate::options::S3Options;
use crate::{Error, Result};

/// One request, all of its attempts together, may take this long; then the caller tries again later.
const REQUEST: Duration = Duration::from_secs(60);
const ATTEMPTS_TOGETHER: Duration = Duration::from_secs(90);

/// Prepares a client; nothing is asked yet.
pub(crate) fn open(options: &S3Options) -> Result<Arc<dyn ObjectStore>> {
    if options.bucket.is_empty() {
        return Err(Error::Settings("[blobs.s3] names no bucket".to_owned()));
    }
    if options.endpoint.starts_with("http://") && !options.allow_http {
        return Err(Error::Settings(
            "[blobs.s3] endpoint is plain HTTP, which allow_http does not allow".to_owned(),
        ));
    }
    let client = ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout(REQUEST);
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 3,
        retry_timeout: ATTEMPTS_TOGETHER,
    };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(retry)
        .with_region(&options.region)
        .with_bucket_name(&options.bucket)
        .with_virtual_hosted_style_request(!options.path_style);
    if !options.endpoint.is_empty() {
        builder = builder.with_endpoint(&options.endpoint);
    }
    let (id, key) = (
        options.access_key_id.expose_secret(),
        options.secret_access_key.expose_secret(),
    );
    match (id.is_empty(), key.is_empty()) {
        (true, true) => {}
        (false, false) => {
            builder = builder.with_access_key_id(id).with_secret_access_key(key);
        }
        _ => {
            return Err(Error::Settings(
                "[blobs.s3] access_key_id and secret_access_key belong together".to_owned(),
            ));
        }
    }
    let store = builder
        .build()
        .map_err(|error| Error::Settings(error.to_string()))?;
    Ok(if options.prefix.is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, options.prefix.as_str()))
    })
}
