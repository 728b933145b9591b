//! Styles, scripts and icons: built by `web/build.mjs` into `web/dist` under names that carry a hash, served for ever.

use std::collections::HashMap;
use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../web/dist"]
#[allow_missing = true]
struct Dist;

fn manifest() -> HashMap<String, String> {
    Dist::get("manifest.json")
        .and_then(|file| serde_json::from_slice(&file.data).ok())
        .unwrap_or_default()
}

/// The URL of an asset by its plain name, as in `asset("app.css")`. Without a build the URL leads nowhere and the page works unstyled.
#[must_use]
pub fn url(name: &str) -> String {
    static MANIFEST: OnceLock<HashMap<String, String>> = OnceLock::new();
    let hashed = if cfg!(debug_assertions) {
        manifest().remove(name)
    } else {
        MANIFEST.get_or_init(manifest).get(name).cloned()
    };
    format!("/assets/{}", hashed.as_deref().unwrap_or(name))
}

/// Says in the log when pages will be unstyled.
pub fn warn_if_missing() {
    if manifest().is_empty() {
        tracing::warn!(
            "there is no web/dist: pages work, but without styles; `npm ci && node build.mjs` in web/ makes them"
        );
    }
}

/// `GET /assets/{name}`.
pub async fn serve(Path(name): Path<String>) -> Response {
    match Dist::get(&name) {
        Some(file) => {
            let kind = file.metadata.mimetype().to_owned();
            let headers = [
                (header::CONTENT_TYPE, kind),
                (
                    header::CACHE_CONTROL,
                    "public, max-age=31536000, immutable".to_owned(),
                ),
            ];
            (headers, file.data).into_response()
        }
        None => (
            StatusCode::NOT_FOUND,
            [(header::CACHE_CONTROL, "no-store")],
            "no such asset",
        )
            .into_response(),
    }
}
