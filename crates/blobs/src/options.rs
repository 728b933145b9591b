//! Settings `[blobs]`.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

/// Where blobs lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In a folder, which all processes that use it must share.
    #[default]
    Folder,
    /// In a bucket.
    S3,
}

/// Settings `[blobs]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Which of the two.
    pub kind: Kind,
    /// The folder.
    pub folder: PathBuf,
    /// The bucket.
    pub s3: S3Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Folder,
            folder: "/var/lib/ostiary/blobs".into(),
            s3: S3Options::default(),
        }
    }
}

/// Settings `[blobs.s3]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Options {
    /// URL of the service; empty for AWS's own in `region`.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Region, as the service calls it.
    pub region: String,
    /// What all names begin with.
    pub prefix: String,
    /// Id of the key; empty together with `secret_access_key` for the role of the machine.
    pub access_key_id: SecretString,
    /// The key.
    pub secret_access_key: SecretString,
    /// The bucket stands in the path of URLs, not in the host name, as most services but AWS want it.
    pub path_style: bool,
    /// May the endpoint be plain HTTP?
    pub allow_http: bool,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            bucket: String::new(),
            region: "us-east-1".to_owned(),
            prefix: "ostiary".to_owned(),
            access_key_id: SecretString::default(),
            secret_access_key: SecretString::default(),
            path_style: false,
            allow_http: false,
        }
    }
}
