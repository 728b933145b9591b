//! The endpoints, each also under `/v1` and under the aliases of the settings. Nothing of the manager is here.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, on};
use axum::{Router, routing::MethodFilter};
use metrics_exporter_prometheus::PrometheusHandle;
use ostiary_boot::http::Peer;
use ostiary_boot::{health, metrics};
use ostiary_domain::osquery::endpoint::PATHS;
use tower_http::catch_panic::CatchPanicLayer;

use crate::aliases::{AliasError, Aliases, Endpoint, numbered};
use crate::error::{self, Error, Result};
use crate::{App, handlers};

/// What operators ask for.
const OPERATION: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

fn serve(endpoint: Endpoint) -> MethodRouter<App> {
    match endpoint {
        Endpoint::Enroll => post_or_put(handlers::enroll),
        Endpoint::Config => post_or_put(handlers::config),
        Endpoint::Log => post_or_put(handlers::log),
        Endpoint::DistributedRead => post_or_put(handlers::distributed_read),
        Endpoint::DistributedWrite => post_or_put(handlers::distributed_write),
        Endpoint::CarveStart => post_or_put(handlers::carve_start),
        // Whatever goes wrong here is said in words, also what is answered outside of the handler.
        Endpoint::CarveContinue => post_or_put(handlers::carve_continue)
            .fallback(async || Error::WrongMethod)
            .layer(CatchPanicLayer::custom(panicked))
            .layer(middleware::map_response(error::in_words)),
    }
}

/// The aliases of the settings, as routes.
///
/// # Errors
/// One of them is no path, or collides with another or with a path of our own.
pub(crate) fn aliases(
    aliases: &Aliases,
) -> std::result::Result<Vec<(String, Endpoint)>, AliasError> {
    let v1: Vec<(String, Endpoint)> = PATHS
        .iter()
        .map(|(path, endpoint)| (format!("/v1{path}"), *endpoint))
        .collect();
    let own: Vec<_> = (PATHS
        .iter()
        .map(|(path, endpoint)| (*path, Some(*endpoint))))
    .chain(
        v1.iter()
            .map(|(path, endpoint)| (path.as_str(), Some(*endpoint))),
    )
    .chain(OPERATION.iter().map(|path| (*path, None)))
    .collect();
    aliases.resolve(&own)
}

/// All endpoints.
pub fn router(app: App, recorder: PrometheusHandle) -> Router {
    let mut osquery = Router::new();
    for (path, endpoint) in PATHS {
        osquery = osquery.route(path, serve(endpoint));
    }
    let operation = Router::new()
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(handlers::ready))
        .route(
            "/metrics",
            get(async move |State(app): State<App>, request: Request| {
                show_metrics(&app, &request, &recorder)
            }),
        );
    let mut routes = osquery.clone().nest("/v1", osquery).merge(operation);
    for (path, endpoint) in &app.aliases {
        routes = routes.route(&numbered(path), serve(*endpoint));
    }
    guard(routes, &app).with_state(app)
}

/// Puts around routes what no answer may go without: a body when nothing fits, when the method is wrong and when a handler panics.
pub fn guard(routes: Router<App>, app: &App) -> Router<App> {
    let routes = routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(async || Error::WrongMethod)
        .layer(CatchPanicLayer::custom(panicked));
    if app.options.keep_alive {
        routes
    } else {
        routes.layer(middleware::from_fn(close_connection))
    }
}

/// The panic's message is in the log already, by the panic hook.
fn panicked(_panic: Box<dyn std::any::Any + Send>) -> Response {
    Error::Internal.into_response()
}

/// A node that has the right path for starts and a wrong one for blocks would take JSON for "stored".
async fn unknown_path(uri: Uri) -> Response {
    let path = uri.path().to_ascii_lowercase();
    let response = Error::UnknownPath.into_response();
    if ["carve", "block", "continue"]
        .iter()
        .any(|word| path.contains(word))
    {
        error::in_words(response).await
    } else {
        response
    }
}

fn post_or_put<H, T>(handler: H) -> MethodRouter<App>
where
    H: axum::handler::Handler<T, App>,
    T: 'static,
{
    on(MethodFilter::POST.or(MethodFilter::PUT), handler)
}

/// osqueryd never uses a connection twice (osquery #7083), but parks up to four idle ones per node unless it is told to close.
async fn close_connection(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn show_metrics(app: &App, request: &Request, recorder: &PrometheusHandle) -> Result<Response> {
    // The peer itself, not what a header says: this is about who may read, not about whom we serve.
    let allowed = request.extensions().get::<Peer>().is_some_and(|peer| {
        let ip = peer.address.ip().to_canonical();
        app.options
            .metrics_allowed
            .iter()
            .any(|net| net.contains(&ip))
    });
    // Behind a proxy on this machine everybody would come from here.
    if allowed && !request.headers().contains_key("x-forwarded-for") {
        Ok(metrics::render(recorder).into_response())
    } else {
        Err(Error::UnknownPath)
    }
}
