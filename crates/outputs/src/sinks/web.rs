//! What all sinks that speak HTTP share.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::gzip::gzip;
use super::{Way, wrong};
use crate::SendError;
use crate::destinations::SettingsError;
use crate::http::{Answer, Request};

/// Reads a URL of HTTP.
pub(crate) fn url_of(text: &str) -> Result<Url, SettingsError> {
    let url: Url = text
        .trim()
        .parse()
        .map_err(|_| wrong("url", "this is no URL"))?;
    match url.scheme() {
        "https" | "http" if url.host_str().is_some() => Ok(url),
        _ => Err(wrong("url", "the URL must begin with https:// or http://")),
    }
}

/// The host of a URL, with its port if it is not the usual one: all that a list may show, since the rest may be a secret.
pub(crate) fn host_of(text: &str) -> String {
    url_of(text).map_or_else(
        |_| String::new(),
        |url| {
            let host = url.host_str().unwrap_or_default().to_owned();
            url.port()
                .map_or(host.clone(), |port| format!("{host}:{port}"))
        },
    )
}

/// A path below a URL, whose own path may end in a slash or not.
pub(crate) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let own = base.path().trim_end_matches('/');
    url.set_path(&format!("{own}/{path}"));
    url
}

/// The header of a user name and a password.
pub(crate) fn basic(user: &str, password: Option<&SecretString>) -> String {
    let password = password.map_or("", |password| password.expose_secret());
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

/// Posts a body, compressed.
pub(crate) async fn post_gzip(
    way: &Way,
    url: &Url,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> Result<Answer, SendError> {
    let mut headers = headers.to_vec();
    headers.push(("Content-Encoding", "gzip".to_owned()));
    let request = Request {
        method: Method::POST,
        url,
        headers: &headers,
        body: gzip(body),
    };
    way.outbound.http.send(request).await
}
