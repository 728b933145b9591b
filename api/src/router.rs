//! The endpoints, each also under `/v1`. Nothing of the manager is here.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, on};
use axum::{Router, routing::MethodFilter};
use metrics_exporter_prometheus::PrometheusHandle;
use ostiary_boot::http::Peer;
use ostiary_boot::{health, metrics};
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::{Error, Result};
use crate::{App, handlers};

/// All endpoints.
pub fn router(app: App, recorder: PrometheusHandle) -> Router {
    let osquery = Router::new()
        .route("/enroll", post_or_put(handlers::enroll))
        .route("/config", post_or_put(handlers::config))
        .route("/log", post_or_put(handlers::log))
        .route("/distributed/read", post_or_put(handlers::distributed_read))
        .route(
            "/distributed/write",
            post_or_put(handlers::distributed_write),
        );
    let operation = Router::new()
        .route("/healthz", get(async || health::alive()))
        .route("/readyz", get(handlers::ready))
        .route(
            "/metrics",
            get(async move |State(app): State<App>, request: Request| {
                show_metrics(&app, &request, &recorder)
            }),
        );
    let routes = osquery.clone().nest("/v1", osquery).merge(operation);
    guard(routes, &app).with_state(app)
}

/// Puts around routes what no answer may go without: a body when nothing fits, when the method is wrong and when a handler panics.
pub fn guard(routes: Router<App>, app: &App) -> Router<App> {
    let routes = routes
        .fallback(async || Error::UnknownPath)
        .method_not_allowed_fallback(async || Error::WrongMethod)
        .layer(CatchPanicLayer::custom(
            |_panic: Box<dyn std::any::Any + Send>| {
                // The panic's message is in the log already, by the panic hook.
                Error::Internal.into_response()
            },
        ));
    if app.options.keep_alive {
        routes
    } else {
        routes.layer(middleware::from_fn(close_connection))
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
