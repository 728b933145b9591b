//! All routes on one page.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_sessions::cookie::SameSite;
use tower_sessions::{Expiry, SessionManagerLayer};

use crate::auth::{self, PostgresSessions};
use crate::state::App;
use crate::{assets, error, operations, pages, rest};

/// Nothing inline, nothing from elsewhere; Bootstrap's form controls use `data:` images.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; script-src 'self'; style-src 'self'; object-src 'none'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Minutes that the session of somebody who has not signed in is kept: as long as a sign-in form stays good.
const ANONYMOUS_MINUTES: i64 = 30;

/// Everything that the manager answers.
pub fn router(app: App) -> Router {
    let open = Router::new()
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics_text))
        .route("/assets/{name}", get(assets::serve))
        .route(
            "/hooks/pagerduty/{destination}",
            post(rest::hooks::pagerduty).layer(DefaultBodyLimit::max(rest::hooks::MOST_BYTES)),
        );
    let routes = open
        .merge(page_router(&app))
        .nest("/api/v1", rest_router(&app));
    harden(routes, &app).with_state(app)
}

fn rest_router(app: &App) -> Router<App> {
    Router::new()
        .route("/nodes", get(rest::nodes::list))
        .route("/nodes/{id}", get(rest::nodes::show))
        .route("/nodes/{id}/events", get(rest::nodes::events))
        .route("/nodes/{id}/present-rows", get(rest::nodes::present))
        .route("/nodes/{id}/present_rows", get(rest::nodes::present))
        .route("/findings", get(rest::findings::list))
        .route("/findings/decide", post(rest::findings::decide_all))
        .route("/findings/{id}", get(rest::findings::show))
        .route(
            "/findings/{id}/acknowledge",
            post(rest::findings::acknowledge),
        )
        .route("/findings/{id}/resolve", post(rest::findings::resolve))
        .route("/findings/{id}/reopen", post(rest::findings::reopen))
        .route("/findings/{id}/comment", post(rest::findings::comment))
        .route(
            "/silences",
            get(rest::silences::list).post(rest::silences::create),
        )
        .route("/silences/{id}/end", post(rest::silences::end))
        .route("/deliveries", get(rest::deliveries::list))
        .route("/deliveries/{id}", get(rest::deliveries::show))
        .route(
            "/deliveries/{id}/send-again",
            post(rest::deliveries::send_again),
        )
        .route(
            "/destinations",
            get(rest::destinations::list).post(rest::destinations::create),
        )
        .route(
            "/destinations/{id}",
            get(rest::destinations::show).put(rest::destinations::update),
        )
        .route(
            "/destinations/{id}/delete",
            post(rest::destinations::delete),
        )
        .route(
            "/destinations/{id}/test",
            post(rest::destinations::send_test),
        )
        .route(
            "/destinations/{id}/send-dead-again",
            post(rest::destinations::send_dead_again),
        )
        .route(
            "/destinations/{id}/replay",
            post(rest::destinations::replay),
        )
        .route("/nodes/{id}/carves", post(rest::carves::collect))
        .route("/carves", get(rest::carves::list))
        .route("/carves/{id}", get(rest::carves::show))
        .route("/carves/{id}/archive", get(pages::carves::archive))
        .route(
            "/carves/{id}/files/{position}",
            get(pages::carves::one_file),
        )
        .route("/unreadable", get(rest::unreadable::list))
        .route("/unreadable/export", get(pages::unreadable::export))
        .route("/unreadable/{id}/data", get(pages::unreadable::data))
        .route("/resync", post(rest::resync::resync))
        .route("/certificates", get(rest::certificates::show))
        .route("/certificates/{id}/nodes", get(rest::certificates::nodes))
        .route(
            "/live-queries",
            get(rest::live_queries::list).post(rest::live_queries::create),
        )
        .route("/live-queries/{id}", get(rest::live_queries::show))
        .route("/live-queries/{id}/rows.csv", get(rest::live_queries::csv))
        .route(
            "/live-queries/{id}/cancel",
            post(rest::live_queries::cancel),
        )
        .route(
            "/config/import",
            post(rest::config::import).layer(DefaultBodyLimit::max(rest::config::MAX_BYTES)),
        )
        .route("/config/export", get(rest::config::export))
        .route("/packs/{id}/export", get(rest::config::export_pack))
        .merge(rest_rollout_routes())
        .merge(rest_rule_routes())
        .merge(rest_identity_routes())
        .fallback(rest::not_found)
        .layer(from_fn_with_state(app.clone(), auth::identify_by_token))
        .layer(CatchPanicLayer::new())
        .layer(from_fn(error::as_problems))
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
}

fn rest_identity_routes() -> Router<App> {
    Router::new()
        .route("/nodes/conflicts", get(rest::identity::conflicts))
        .route("/nodes/conflicts/merge", post(rest::identity::merge))
        .route(
            "/nodes/conflicts/keep-apart",
            post(rest::identity::keep_apart),
        )
        .route("/nodes/approvals", get(rest::identity::approvals))
        .route("/nodes/{id}/approve", post(rest::identity::approve))
        .route("/nodes/{id}/refuse", post(rest::identity::refuse))
}

fn rest_rule_routes() -> Router<App> {
    Router::new()
        .route("/rules", get(rest::rules::list).post(rest::rules::create))
        .route("/rules/dry-run", post(rest::rules::dry_run))
        .route("/rules/language", get(rest::rules::language))
        .route(
            "/rules/{id}",
            get(rest::rules::show)
                .put(rest::rules::update)
                .delete(rest::rules::delete),
        )
        .route("/rules/{id}/revisions", get(rest::rules::revisions))
        .route("/rules/{id}/revisions/{number}", get(rest::rules::revision))
        .route(
            "/rules/{id}/revisions/{number}/return",
            post(rest::rules::return_to),
        )
}

fn rest_rollout_routes() -> Router<App> {
    Router::new()
        .route("/revisions", get(rest::revisions::list))
        .route("/revisions/{number}", get(rest::revisions::show))
        .route(
            "/revisions/{number}/diff",
            get(rest::revisions::differences),
        )
        .route(
            "/revisions/{number}/return",
            post(rest::revisions::return_to),
        )
        .route("/sinks", get(rest::sinks::list).post(rest::sinks::create))
        .route(
            "/sinks/{id}",
            get(rest::sinks::show).put(rest::sinks::update),
        )
        .route("/sinks/{id}/pause", post(rest::sinks::pause))
        .route("/sinks/{id}/resume", post(rest::sinks::resume))
        .route("/sinks/{id}/test", post(rest::sinks::send_test))
        .route("/sinks/{id}/replay", post(rest::sinks::replay))
        .route("/sinks/{id}/delete", post(rest::sinks::delete))
        .route("/rollouts", get(rest::rollouts::list))
        .route("/rollouts/{id}", get(rest::rollouts::show))
        .route("/rollouts/{id}/halt", post(rest::rollouts::halt))
        .route("/rollouts/{id}/resume", post(rest::rollouts::resume))
        .route("/rollouts/{id}/finish", post(rest::rollouts::finish))
        .route("/rollouts/{id}/return", post(rest::rollouts::take_back))
}

fn page_router(app: &App) -> Router<App> {
    let is_https = app.settings.is_https();
    // `__Host-`: only this host may have set it, only over https (RFC 6265bis).
    let name = if is_https {
        "__Host-ostiary"
    } else {
        "ostiary"
    };
    let sessions = SessionManagerLayer::new(PostgresSessions::new(app.clone()))
        .with_name(name)
        .with_path("/")
        .with_secure(is_https)
        .with_http_only(true)
        // Lax, not strict: a link in an alert's mail leads into the manager. Every change is guarded by a token besides.
        .with_same_site(SameSite::Lax)
        .with_expiry(Expiry::OnInactivity(time::Duration::minutes(ANONYMOUS_MINUTES)));
    people_routes()
        .merge(node_routes())
        .merge(config_routes())
        .merge(alert_routes())
        .fallback(pages::errors::not_found)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(CatchPanicLayer::new())
        .layer(from_fn_with_state(app.clone(), error::as_pages))
        .layer(from_fn_with_state(app.clone(), auth::identify))
        .layer(sessions)
}

fn people_routes() -> Router<App> {
    Router::new()
        .route("/", get(pages::overview::show))
        .route(
            "/sign-in",
            get(pages::sign_in::form).post(pages::sign_in::submit),
        )
        .route("/sign-out", post(pages::sign_in::sign_out))
        .route("/account", get(pages::account::show))
        .route("/account/password", post(pages::account::change_password))
        .route("/audit", get(pages::audit::list))
        .route("/users", get(pages::users::list).post(pages::users::create))
        .route("/users/new", get(pages::users::new))
        .route("/users/{id}", post(pages::users::update))
        .route("/users/{id}/edit", get(pages::users::edit))
        .route("/users/{id}/password", post(pages::users::set_password))
        .route("/users/{id}/disable", post(pages::users::disable))
        .route("/users/{id}/enable", post(pages::users::enable))
        .route("/users/{id}/delete", post(pages::users::delete))
        .route(
            "/tokens",
            get(pages::tokens::list).post(pages::tokens::create),
        )
        .route("/tokens/{id}/revoke", post(pages::tokens::revoke))
}

fn node_routes() -> Router<App> {
    Router::new()
        .route("/nodes", get(pages::nodes::list))
        .route("/nodes/tags", post(pages::nodes::tag_many))
        .route("/nodes/conflicts", get(pages::identity::conflicts))
        .route("/nodes/conflicts/merge", post(pages::identity::merge))
        .route(
            "/nodes/conflicts/keep-apart",
            post(pages::identity::keep_apart),
        )
        .route("/nodes/approvals", get(pages::identity::approvals))
        .route("/nodes/{id}/approve", post(pages::identity::approve))
        .route("/nodes/{id}/refuse", post(pages::identity::refuse))
        .route("/nodes/{id}", get(pages::nodes::show))
        .route("/nodes/{id}/present", get(pages::nodes::present))
        .route("/nodes/{id}/events", get(pages::nodes::events))
        .route("/nodes/{id}/findings", get(pages::nodes::findings))
        .route("/nodes/{id}/status-logs", get(pages::nodes::status_logs))
        .route("/nodes/{id}/live-queries", get(pages::nodes::live_queries))
        .route("/nodes/{id}/config", get(pages::nodes::config))
        .route(
            "/nodes/{id}/carves",
            get(pages::carves::of_node).post(pages::carves::collect),
        )
        .route("/carves", get(pages::carves::list))
        .route("/carves/{id}", get(pages::carves::show))
        .route("/carves/{id}/archive", get(pages::carves::archive))
        .route(
            "/carves/{id}/files/{position}",
            get(pages::carves::one_file),
        )
        .route("/nodes/{id}/name", post(pages::nodes::rename))
        .route("/nodes/{id}/tags", post(pages::nodes::tag))
        .route("/nodes/{id}/disable", post(pages::nodes::disable))
        .route("/nodes/{id}/enable", post(pages::nodes::enable))
        .route("/nodes/{id}/revoke-keys", post(pages::nodes::revoke_keys))
        .route("/nodes/{id}/delete", post(pages::nodes::delete))
        .route(
            "/live-queries",
            get(pages::live_queries::list).post(pages::live_queries::create),
        )
        .route("/live-queries/new", get(pages::live_queries::new))
        .route("/live-queries/{id}", get(pages::live_queries::show))
        .route("/live-queries/{id}/part", get(pages::live_queries::part))
        .route("/live-queries/{id}/learn", post(pages::live_queries::learn))
        .route(
            "/nodes/{id}/learn-tables",
            post(pages::live_queries::ask_for_tables),
        )
        .route("/live-queries/{id}/rows.csv", get(pages::live_queries::csv))
        .route(
            "/live-queries/{id}/cancel",
            post(pages::live_queries::cancel),
        )
        .route("/enroll", get(pages::enroll::show))
        .route("/enroll/secrets", post(pages::enroll::create))
        .route(
            "/enroll/secrets/{id}",
            get(pages::enroll_secrets::show).post(pages::enroll_secrets::update),
        )
        .route("/enroll/key-header", get(pages::enroll_secrets::key_header))
        .route("/enroll/secrets/{id}/revoke", post(pages::enroll::revoke))
        .route("/enroll/secrets/{id}/reveal", post(pages::enroll::reveal))
        .route(
            "/enroll/node-keys",
            get(pages::node_keys::form).post(pages::node_keys::upload),
        )
        .route("/enroll/node-keys/{upload}", get(pages::node_keys::report))
        .route(
            "/enroll/node-keys/{upload}/apply",
            post(pages::node_keys::apply),
        )
        .route("/enroll/ca.pem", get(pages::enroll::ca_certificate))
        .route("/certificates", get(pages::certificates::show))
        .route("/certificates/{id}/nodes", get(pages::certificates::nodes))
        .route(
            "/certificates/{id}/nodes.csv",
            get(pages::certificates::csv),
        )
        .route("/enroll/new-nodes", get(pages::enroll::new_nodes))
        .route("/unreadable", get(pages::unreadable::list))
        .route("/unreadable/export", get(pages::unreadable::export))
        .route("/unreadable/{id}/data", get(pages::unreadable::data))
}

fn config_routes() -> Router<App> {
    Router::new()
        .route("/packs", get(pages::packs::list).post(pages::packs::create))
        .route("/packs/new", get(pages::packs::new))
        .route(
            "/packs/import",
            get(pages::config_import::form).post(pages::config_import::upload),
        )
        .route("/packs/import/{upload}", get(pages::config_import::report))
        .route(
            "/packs/import/{upload}/apply",
            post(pages::config_import::apply),
        )
        .route("/config/export", get(pages::config_import::export_form))
        .route("/config/export/file", get(pages::config_import::export))
        .route("/packs/{id}/export", get(pages::config_import::export_pack))
        .route(
            "/packs/{id}",
            get(pages::packs::show).post(pages::packs::update),
        )
        .route("/packs/{id}/edit", get(pages::packs::edit))
        .route("/packs/{id}/delete", post(pages::packs::delete))
        .route("/packs/{id}/queries", post(pages::queries::create_in_pack))
        .route("/packs/{id}/queries/new", get(pages::queries::new_in_pack))
        .route(
            "/packs/{id}/queries/{query}",
            post(pages::queries::update_in_pack),
        )
        .route(
            "/packs/{id}/queries/{query}/edit",
            get(pages::queries::edit_in_pack),
        )
        .route(
            "/packs/{id}/queries/{query}/delete",
            post(pages::queries::delete_in_pack),
        )
        .route(
            "/queries",
            get(pages::queries::list).post(pages::queries::create),
        )
        .route("/queries/new", get(pages::queries::new))
        .route("/queries/{id}", post(pages::queries::update))
        .route("/queries/{id}/edit", get(pages::queries::edit))
        .route("/queries/{id}/delete", post(pages::queries::delete))
        .merge(pages::entries::routes::<pages::file_paths::FilePaths>())
        .merge(pages::entries::routes::<pages::options::Options>())
        .route("/options/forget", post(pages::options::forget))
        .route(
            "/resync",
            get(pages::resync::ask).post(pages::resync::resync),
        )
        .merge(pages::entries::routes::<pages::decorators::Decorators>())
        .merge(pages::entries::routes::<pages::sections::Sections>())
        .route("/revisions", get(pages::revisions::list))
        .route("/revisions/{number}", get(pages::revisions::show))
        .route(
            "/revisions/{number}/return",
            post(pages::revisions::return_to),
        )
        .route("/rollouts/{id}", get(pages::rollouts::show))
        .route("/rollouts/{id}/halt", post(pages::rollouts::halt))
        .route("/rollouts/{id}/resume", post(pages::rollouts::resume))
        .route("/rollouts/{id}/finish", post(pages::rollouts::finish))
        .route("/rollouts/{id}/return", post(pages::rollouts::take_back))
        .route("/sql-check", post(pages::sql_check::check))
        .route(
            "/table-denials",
            get(pages::table_denials::list).post(pages::table_denials::create),
        )
        .route("/table-denials/new", get(pages::table_denials::new))
        .route("/table-denials/{id}", post(pages::table_denials::update))
        .route("/table-denials/{id}/edit", get(pages::table_denials::edit))
        .route(
            "/table-denials/{id}/delete",
            post(pages::table_denials::delete),
        )
        .route("/tags", get(pages::tags::list).post(pages::tags::create))
        .route("/tags/{id}", post(pages::tags::update))
        .route("/tags/{id}/edit", get(pages::tags::edit))
        .route("/tags/{id}/delete", post(pages::tags::delete))
}

fn alert_routes() -> Router<App> {
    Router::new()
        .route("/rules", get(pages::rules::list).post(pages::rules::create))
        .route("/rules/new", get(pages::rules::new))
        .route("/rules/dry-run", post(pages::rules::try_new))
        .route("/rules/starter", post(pages::rules::add_starter))
        .route(
            "/rules/{id}",
            get(pages::rules::show).post(pages::rules::update),
        )
        .route("/rules/{id}/edit", get(pages::rules::edit))
        .route("/rules/{id}/dry-run", post(pages::rules::try_changed))
        .route(
            "/rules/{id}/revisions/{number}/return",
            post(pages::rules::return_to),
        )
        .route("/rules/{id}/delete", post(pages::rules::delete))
        .route("/findings", get(pages::findings::list))
        .route("/findings/decide", post(pages::findings::decide_all))
        .route("/findings/{id}", get(pages::findings::show))
        .route(
            "/findings/{id}/acknowledge",
            post(pages::findings::acknowledge),
        )
        .route("/findings/{id}/resolve", post(pages::findings::resolve))
        .route("/findings/{id}/reopen", post(pages::findings::reopen))
        .route("/findings/{id}/comment", post(pages::findings::comment))
        .route(
            "/silences",
            get(pages::silences::list).post(pages::silences::create),
        )
        .route("/silences/new", get(pages::silences::new))
        .route("/silences/{id}/end", post(pages::silences::end))
        .route(
            "/destinations",
            get(pages::destinations::list).post(pages::destinations::create),
        )
        .route("/destinations/new", get(pages::destinations::new))
        .route("/destinations/preview", post(pages::destinations::preview))
        .route(
            "/destinations/{id}/send-dead-again",
            post(pages::destinations::send_dead_again),
        )
        .route(
            "/destinations/{id}/replay",
            post(pages::destinations::replay),
        )
        .route("/deliveries", get(pages::deliveries::list))
        .route("/deliveries/{id}", get(pages::deliveries::show))
        .route(
            "/deliveries/{id}/send-again",
            post(pages::deliveries::send_again),
        )
        .route(
            "/destinations/{id}",
            get(pages::destinations::show).post(pages::destinations::update),
        )
        .route("/destinations/{id}/edit", get(pages::destinations::edit))
        .route(
            "/destinations/{id}/test",
            post(pages::destinations::send_test),
        )
        .route(
            "/destinations/{id}/delete",
            post(pages::destinations::delete),
        )
        .route("/sinks", get(pages::sinks::list).post(pages::sinks::create))
        .route("/sinks/new", get(pages::sinks::new))
        .route(
            "/sinks/{id}",
            get(pages::sinks::show).post(pages::sinks::update),
        )
        .route("/sinks/{id}/edit", get(pages::sinks::edit))
        .route("/sinks/{id}/pause", post(pages::sinks::pause))
        .route("/sinks/{id}/resume", post(pages::sinks::resume))
        .route("/sinks/{id}/test", post(pages::sinks::send_test))
        .route("/sinks/{id}/replay", post(pages::sinks::replay))
        .route("/sinks/{id}/delete", post(pages::sinks::delete))
}

/// Headers that every answer carries, whoever made it.
fn harden(routes: Router<App>, app: &App) -> Router<App> {
    let mut routes = routes
        .layer(from_fn(operations::measure))
        .layer(CompressionLayer::new());
    let mut headers = vec![
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    if app.settings.is_https() {
        headers.push(("strict-transport-security", "max-age=31536000"));
    }
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        routes = routes.layer(SetResponseHeaderLayer::overriding(
            name,
            HeaderValue::from_static(value),
        ));
    }
    routes
}
