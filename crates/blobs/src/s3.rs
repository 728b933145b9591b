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
use crate::storage::id_of;
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
    /// As names begin with it, escaped as object_store has it; empty for the whole bucket.
    prefix: Path,
}

/// Pages of a thousand uploads that are read at most; the rest waits for the next time.
const PAGES: usize = 20;

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
            prefix: Path::from(options.prefix.as_str()),
        })
    }

    /// The objects below the prefix.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        if self.prefix.as_ref().is_empty() {
            self.store.clone()
        } else {
            Arc::new(PrefixStore::new(self.store.clone(), self.prefix.clone()))
        }
    }

    /// What names below the prefix begin with: nothing, or something with a `/` at its end.
    fn beginning(&self) -> String {
        match self.prefix.as_ref() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
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
            // Its name as it is: nothing is to be escaped again.
            let Ok(path) = Path::parse(&upload.key) else {
                continue;
            };
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
        let name = key.strip_prefix(self.beginning().as_str());
        name.and_then(id_of).is_some()
    }

    /// The uploads that are under way below the prefix.
    async fn list_uploads(&self) -> Result<Vec<Upload>> {
        let mut uploads = Vec::new();
        let mut after = None;
        for _ in 0..PAGES {
            let mut page = self.list_page(after.as_ref()).await?;
            uploads.append(&mut page.uploads);
            after = page.next();
            if after.is_none() {
                break;
            }
        }
        Ok(uploads)
    }

    /// A page of `ListMultipartUploads`, which object_store cannot ask.
    async fn list_page(&self, after: Option<&Marker>) -> Result<Listed> {
        let url = format!("{}?{}", self.url, question(&self.beginning(), after));
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
        quick_xml::de::from_reader(&body[..]).map_err(|error| failed(error.into()))
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
    #[serde(default, rename = "IsTruncated")]
    is_truncated: bool,
    #[serde(default, rename = "NextKeyMarker")]
    next_key: String,
    #[serde(default, rename = "NextUploadIdMarker")]
    next_upload_id: String,
}

/// Where a page ends.
#[derive(Debug, PartialEq, Eq)]
struct Marker {
    key: String,
    upload_id: String,
}

impl Listed {
    /// Where the next page begins, if there is one.
    fn next(self) -> Option<Marker> {
        (self.is_truncated && !self.next_key.is_empty()).then_some(Marker {
            key: self.next_key,
            upload_id: self.next_upload_id,
        })
    }
}

/// The query of a page's URL.
fn question(prefix: &str, after: Option<&Marker>) -> String {
    let mut question = format!("uploads=&prefix={}", escaped(prefix));
    if let Some(Marker { key, upload_id }) = after {
        question.push_str(&format!("&key-marker={}", escaped(key)));
        // Without one it begins after all uploads of the key.
        if !upload_id.is_empty() {
            question.push_str(&format!("&upload-id-marker={}", escaped(upload_id)));
        }
    }
    question
}

/// All but the unreserved characters of RFC 3986 in per cent, as the signature has it.
fn escaped(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    bytes.collect()
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
    fn pages_of_uploads_follow_each_other() {
        let said = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>
            <NextKeyMarker>a b/k</NextKeyMarker><NextUploadIdMarker>t+o</NextUploadIdMarker>
            </ListMultipartUploadsResult>";
        let listed: Listed = quick_xml::de::from_str(said).unwrap();
        let next = listed.next().unwrap();
        assert_eq!(
            question("a b/", Some(&next)),
            "uploads=&prefix=a%20b%2F&key-marker=a%20b%2Fk&upload-id-marker=t%2Bo"
        );
        assert_eq!(question("", None), "uploads=&prefix=");
        let last = said.replace("true", "false");
        let listed: Listed = quick_xml::de::from_str(&last).unwrap();
        assert_eq!(listed.next(), None);
    }

    #[test]
    fn only_uploads_of_ours_are_aborted() {
        let options = |prefix: &str| S3Options {
            bucket: "b".to_owned(),
            prefix: prefix.to_owned(),
            ..S3Options::default()
        };
        let id = "0198f3a2c4d57e6f8a9b0c1d2e3f4051";
        let not_of_ours = id.replace("7e6f", "4e6f");
        for (prefix, key, ours) in [
            ("ostiary", format!("ostiary/{id}"), true),
            ("/ostiary/", format!("ostiary/{id}"), true),
            ("", id.to_owned(), true),
            ("", not_of_ours.clone(), false),
            ("ostiary", format!("ostiary/{not_of_ours}"), false),
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
