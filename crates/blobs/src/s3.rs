//! Blobs in a bucket.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{
    HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector,
};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use crate::options::S3Options;
use crate::{Error, Result};

/// One request, all of its attempts together, may take this long; then the caller tries again later.
const REQUEST: Duration = Duration::from_secs(60);
const ATTEMPTS_TOGETHER: Duration = Duration::from_secs(90);

/// A bucket, as far as object_store does not speak with it.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: Arc<AmazonS3>,
    client: HttpClient,
    url: String,
    region: String,
    prefix: String,
}

impl Bucket {
    /// Prepares a client; nothing is asked yet.
    pub(crate) fn open(options: &S3Options) -> Result<Self> {
        let store = Arc::new(build(options)?);
        let client = ReqwestConnector::default().connect(&client_options(options))?;
        Ok(Self {
            store,
            client,
            url: url_of(options),
            region: options.region.clone(),
            prefix: options.prefix.trim_matches('/').to_owned(),
        })
    }

    /// The objects below the prefix.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        if self.prefix.is_empty() {
            self.store.clone()
        } else {
            Arc::new(PrefixStore::new(self.store.clone(), self.prefix.as_str()))
        }
    }

    /// Aborts uploads of ours that were begun before then and are not finished; gives how many. Of very many, some wait for the next
    /// time.
    pub(crate) async fn abort_left_over(&self, before: DateTime<Utc>) -> Result<usize> {
        let mut aborted = 0;
        for upload in self.list_uploads().await? {
            if upload.initiated >= before || !self.is_ours(&upload.key) {
                continue;
            }
            let path = Path::from(upload.key.as_str());
            match self.store.abort_multipart(&path, &upload.upload_id).await {
                Ok(()) => aborted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(aborted)
    }

    /// Others may keep other things in the same bucket.
    fn is_ours(&self, key: &str) -> bool {
        let name = match self.prefix.as_str() {
            "" => Some(key),
            prefix => key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/')),
        };
        name.is_some_and(|name| name.len() == 32 && name.bytes().all(|c| c.is_ascii_hexdigit()))
    }

    /// `ListMultipartUploads`, which object_store cannot ask: the first thousand.
    async fn list_uploads(&self) -> Result<Vec<Upload>> {
        let url = format!("{}?uploads=&prefix={}", self.url, self.prefix);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .parse()
            .map_err(|error| Error::Settings(format!("{url} is no URL: {error}")))?;
        let credential = self.store.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::Storage(object_store::Error::Generic {
                store: "S3",
                source,
            })
        };
        let answer = self
            .client
            .execute(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let status = answer.status();
        let body = answer.into_body().bytes();
        let body = body.await.map_err(|error| failed(error.into()))?;
        if !status.is_success() {
            return Err(failed(format!("uploads cannot be listed: {status}").into()));
        }
        let listed: Listed =
            quick_xml::de::from_reader(&body[..]).map_err(|error| failed(error.into()))?;
        Ok(listed.uploads)
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: DateTime<Utc>,
}

/// As object_store's builder makes it.
fn url_of(options: &S3Options) -> String {
    let (bucket, region) = (&options.bucket, &options.region);
    let endpoint = options.endpoint.trim_end_matches('/');
    match (endpoint.is_empty(), options.path_style) {
        (true, true) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        (true, false) => format!("https://{bucket}.s3.{region}.amazonaws.com/"),
        (false, true) => format!("{endpoint}/{bucket}"),
        (false, false) => format!("{endpoint}/"),
    }
}

fn client_options(options: &S3Options) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout(REQUEST)
}

fn build(options: &S3Options) -> Result<AmazonS3> {
    if options.bucket.is_empty() {
        return Err(Error::Settings("[blobs.s3] names no bucket".to_owned()));
    }
    if options.endpoint.starts_with("http://") && !options.allow_http {
        return Err(Error::Settings(
            "[blobs.s3] endpoint is plain HTTP, which allow_http does not allow".to_owned(),
        ));
    }
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 3,
        retry_timeout: ATTEMPTS_TOGETHER,
    };
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client_options(options))
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
    builder
        .build()
        .map_err(|error| Error::Settings(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_read_from_what_a_bucket_says() {
        let said = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket>
            <MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated>
            <Upload><Key>ostiary/a</Key><UploadId>one</UploadId><Initiator><ID>i</ID></Initiator>
            <StorageClass>STANDARD</StorageClass><Initiated>2026-11-20T20:48:33.000Z</Initiated></Upload>
            <Upload><Key>ostiary/b</Key><UploadId>t&amp;o</UploadId><Initiated>2026-11-21T00:00:00Z</Initiated></Upload>
            </ListMultipartUploadsResult>"#;
        let listed: Listed = quick_xml::de::from_str(said).unwrap();
        let ids: Vec<&str> = listed
            .uploads
            .iter()
            .map(|upload| upload.upload_id.as_str())
            .collect();
        assert_eq!(ids, ["one", "t&o"]);
        let none = "<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>";
        let listed: Listed = quick_xml::de::from_str(none).unwrap();
        assert!(listed.uploads.is_empty());
    }

    #[test]
    fn only_uploads_of_ours_are_aborted() {
        let options = |prefix: &str| S3Options {
            bucket: "b".to_owned(),
            prefix: prefix.to_owned(),
            ..S3Options::default()
        };
        let id = "0".repeat(32);
        for (prefix, key, ours) in [
            ("ostiary", format!("ostiary/{id}"), true),
            ("", id.clone(), true),
            ("ostiary", format!("other/{id}"), false),
            ("ostiary", format!("ostiary2/{id}"), false),
            ("ostiary", "ostiary/backup.tar".to_owned(), false),
            ("", format!("x/{id}"), false),
        ] {
            let bucket = Bucket::open(&options(prefix)).unwrap();
            assert_eq!(bucket.is_ours(&key), ours, "{key} below {prefix:?}");
        }
    }
}
