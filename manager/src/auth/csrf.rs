//! Cross-site request forgery: no change by a page of somebody else.
//!
//! Twofold: browsers say where a request comes from (`Sec-Fetch-Site`, else `Origin`), and every form carries its session's token.
//! Checked here for every request that is not safe, so that no handler can forget it.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Visitor;
use crate::error::{Error, Result};
use crate::state::App;

/// The largest form that is read, in bytes: an imported pack, with room to say kindly that it is too large for a node.
const MAX_FORM_BYTES: usize = 8 * 1024 * 1024;

/// Middleware of the pages.
pub async fn guard(
    State(app): State<App>,
    visitor: Visitor,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match check(&app, &visitor, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn check(app: &App, visitor: &Visitor, request: Request) -> Result<Request> {
    if request.method() != Method::POST
        || !is_same_site(request.headers(), &app.settings.public.manager_url)
    {
        return Err(Error::Forbidden(
            "This request came from another site and was not carried out.".to_owned(),
        ));
    }
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_FORM_BYTES).await.map_err(|_| {
        Error::Refused(format!(
            "More than {} MB were sent.",
            MAX_FORM_BYTES / 1024 / 1024
        ))
    })?;
    let token = match parts
        .headers
        .get("x-csrf-token")
        .and_then(|value| value.to_str().ok())
    {
        Some(token) => Some(token.to_owned()),
        None => token_in(&parts.headers, bytes.clone()).await,
    };
    if !visitor.knows_csrf(&token.unwrap_or_default()).await? {
        return Err(Error::Forbidden(
            "This form belongs to a session that has ended. Nothing was changed: go back, load the page again and send it once more."
                .to_owned(),
        ));
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Browsers of today send `Sec-Fetch-Site` to trustworthy addresses; over plain HTTP to a host name they send only `Origin`.
fn is_same_site(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match text("origin") {
        None => true,
        Some(origin) => {
            let host = origin.split_once("://").map_or(origin, |(_, host)| host);
            text("host") == Some(host) || public_url.trim_end_matches('/') == origin
        }
    }
}

async fn token_in(headers: &HeaderMap, body: Bytes) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if kind.starts_with("application/x-www-form-urlencoded") {
        let fields = crate::pages::Fields::parse(&body);
        return Some(fields.text("csrf").to_owned());
    }
    if kind.starts_with("multipart/form-data") {
        let request = Request::builder()
            .method(Method::POST)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .ok()?;
        let mut parts = Multipart::from_request(request, &()).await.ok()?;
        while let Ok(Some(field)) = parts.next_field().await {
            if field.name() == Some("csrf") {
                return field.text().await.ok();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_site_is_known_by_its_headers() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://a:1"),
                    ("host", "a:1"),
                ],
                false,
            ),
            (&[("origin", "http://a:1"), ("host", "a:1")], true),
            (
                &[
                    ("origin", "https://manager.example.com"),
                    ("host", "10.0.0.1:8080"),
                ],
                true,
            ),
            (&[("origin", "null"), ("host", "a:1")], false),
        ];
        for (given, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(
                    header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            assert_eq!(
                is_same_site(&headers, "https://manager.example.com/"),
                expected,
                "{given:?}"
            );
        }
    }
}
