//! How do I add a node? Secrets, flagfiles, the certificate, and the nodes that have just come.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use ostiary_boot::certificates;
use ostiary_domain::ids::EnrollSecretId;
use ostiary_store::enroll_secrets::{self as store, SecretLine};
use ostiary_store::{node_lists, tags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::enroll_secrets::{self, SecretDraft};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::certificates::Bundle;
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const PAGE: Page<'static> = Page {
    template: "pages/enroll/show.html",
    title: "Enroll",
    nav: "enroll",
};

/// What a secret may ask of an admin, for forms: the word and what it means.
pub(super) const APPROVALS: [[&str; 2]; 3] = [
    ["none", "Nodes are let in at once"],
    [
        "reestablished",
        "An admin approves who would take over a silent node's identity",
    ],
    ["all", "An admin approves of every node"],
];

/// The word for whether a secret can be used.
pub(super) fn state(secret: &SecretLine, now: DateTime<Utc>) -> &'static str {
    if secret.revoked_at.is_some() {
        "revoked"
    } else if secret.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else if secret.use_limit.is_some_and(|limit| secret.uses >= limit) {
        "used_up"
    } else {
        "active"
    }
}

async fn context(
    app: &App,
    form: &SecretDraft,
    errors: FieldErrors,
    created: Option<Value>,
) -> Result<Value> {
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let secrets: Vec<Value> = store::list(&mut conn)
        .await?
        .iter()
        .map(|secret| {
            let mut shown = json!(secret);
            shown["state"] = state(secret, now).into();
            shown
        })
        .collect();
    let all_tags = tags::names(&mut conn).await?;
    drop(conn);
    let host = &app.settings.public.api_host;
    let fingerprints: Vec<String> = Bundle::read(app)
        .await
        .roots()
        .iter()
        .map(|root| certificates::fingerprint(root))
        .collect();
    Ok(json!({
        "secrets": secrets, "form": form, "errors": errors, "all_tags": all_tags, "created": created,
        "api_url": format!("https://{host}"), "api_host": host,
        "ca": {"available": !fingerprints.is_empty(), "fingerprints": fingerprints},
        "approvals": APPROVALS, "platforms": platforms(host), "newest": [], "since": now,
    }))
}

/// `GET /enroll`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    PAGE.show(
        &app,
        &visitor,
        context(&app, &SecretDraft::default(), FieldErrors::default(), None).await?,
    )
    .await
}

/// `POST /enroll/secrets`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let form = SecretDraft {
        name: fields.owned("name"),
        tags: fields.owned("tags"),
        expires_days: fields.owned("expires_days"),
        use_limit: fields.owned("use_limit"),
        approval: fields.owned("approval"),
    };
    match enroll_secrets::create(&app, &permit, &form).await {
        Ok(secret) => {
            let created = json!({"name": form.name.trim(), "secret": secret});
            PAGE.show(
                &app,
                &visitor,
                context(
                    &app,
                    &SecretDraft::default(),
                    FieldErrors::default(),
                    Some(created),
                )
                .await?,
            )
            .await
        }
        Err(error) => {
            PAGE.show_again(
                &app,
                &visitor,
                context(&app, &form, error.into_fields()?, None).await?,
            )
            .await
        }
    }
}

/// `POST /enroll/secrets/{id}/revoke`
pub(crate) async fn revoke(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<EnrollSecretId>,
) -> Result<Response> {
    enroll_secrets::revoke(&app, &permit, id).await?;
    visitor
        .done(
            "/enroll",
            "Revoked: nobody enrolls with it any more. Nodes that did keep their keys.",
        )
        .await
}

/// `POST /enroll/secrets/{id}/reveal`: once more, for the password.
pub(crate) async fn reveal(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<EnrollSecretId>,
    fields: Fields,
) -> Result<Response> {
    match enroll_secrets::reveal(&app, &permit, &visitor, id, fields.text("password")).await {
        Ok((name, secret)) => {
            let created = json!({"name": name, "secret": secret});
            PAGE.show(
                &app,
                &visitor,
                context(
                    &app,
                    &SecretDraft::default(),
                    FieldErrors::default(),
                    Some(created),
                )
                .await?,
            )
            .await
        }
        Err(error) => {
            PAGE.show_again(
                &app,
                &visitor,
                context(&app, &SecretDraft::default(), error.into_fields()?, None).await?,
            )
            .await
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    since: String,
}

/// `GET /enroll/new-nodes?since=`
pub(crate) async fn new_nodes(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    // A "+" of an unencoded time zone arrives as a blank.
    let since = DateTime::parse_from_rfc3339(&asked.since.replace(' ', "+"))
        .map_or_else(|_| app.now(), |at| at.with_timezone(&Utc));
    let newest = node_lists::newest(&mut *app.db.acquire().await?, Some(since), 20).await?;
    let context = json!({"newest": newest, "since": since});
    Page {
        template: "pages/enroll/new_nodes.html",
        title: "Enroll",
        nav: "enroll",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /enroll/ca.pem`
pub(crate) async fn ca_certificate(State(app): State<App>, _: Permit<View>) -> Result<Response> {
    let pem = ca(&app).await.ok_or(Error::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-pem-file"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"ostiary-ca.pem\"",
        ),
    ];
    Ok((headers, pem).into_response())
}

/// All roots that nodes shall trust, during a rotation the present and the next one.
async fn ca(app: &App) -> Option<String> {
    let roots = Bundle::read(app).await.roots();
    (!roots.is_empty()).then(|| certificates::to_pem(&roots))
}

/// What to put on a machine, for each platform. Paths are those of osquery's own packages.
fn platforms(host: &str) -> Value {
    let of = |name, title, dir: &str, separator, install: &str| {
        let flagfile = flagfile(host, dir, separator);
        json!({"name": name, "title": title, "config_dir": dir, "flagfile": flagfile, "install": install})
    };
    json!([
        of(
            "linux",
            "Linux",
            "/etc/osquery",
            '/',
            "# the package from https://osquery.io/downloads, then as root:\n\
             install -m 600 secret /etc/osquery/secret\n\
             install -m 644 ostiary-ca.pem /etc/osquery/ca.pem\n\
             install -m 644 osquery.flags /etc/osquery/osquery.flags\n\
             systemctl enable --now osqueryd\n"
        ),
        of(
            "darwin",
            "macOS",
            "/var/osquery",
            '/',
            "# the package from https://osquery.io/downloads, then:\n\
             sudo install -m 600 secret /var/osquery/secret\n\
             sudo install -m 644 ostiary-ca.pem /var/osquery/ca.pem\n\
             sudo install -m 644 osquery.flags /var/osquery/osquery.flags\n\
             sudo osqueryctl start\n"
        ),
        of(
            "windows",
            "Windows",
            "C:\\Program Files\\osquery",
            '\\',
            "# the MSI from https://osquery.io/downloads, then in an elevated PowerShell:\n\
             Copy-Item secret, osquery.flags 'C:\\Program Files\\osquery\\'\n\
             Copy-Item ostiary-ca.pem 'C:\\Program Files\\osquery\\ca.pem'\n\
             Restart-Service osqueryd\n"
        ),
    ])
}

/// osqueryd's flags, one a line and without quotes, as it wants them. `tls_enroll_max_attempts=0` keeps a node trying for ever.
fn flagfile(host: &str, dir: &str, separator: char) -> String {
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:443")
    };
    let own = [
        format!("--tls_hostname={host}"),
        format!("--tls_server_certs={dir}{separator}ca.pem"),
        "--host_identifier=instance".to_owned(),
        format!("--enroll_secret_path={dir}{separator}secret"),
    ];
    let fixed = [
        "--enroll_tls_endpoint=/enroll",
        "--tls_enroll_max_attempts=0",
        "--config_plugin=tls",
        "--config_tls_endpoint=/config",
        "--config_refresh=60",
        "--config_accelerated_refresh=60",
        "--logger_plugin=tls",
        "--logger_tls_endpoint=/log",
        "--logger_tls_period=10",
        "--logger_tls_compress=true",
        "--logger_min_status=1",
        "--disable_distributed=false",
        "--distributed_plugin=tls",
        "--distributed_interval=10",
        "--distributed_tls_read_endpoint=/distributed/read",
        "--distributed_tls_write_endpoint=/distributed/write",
    ];
    let lines: Vec<&str> = own.iter().map(String::as_str).chain(fixed).collect();
    format!("{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flagfile_names_every_endpoint() {
        let flags = flagfile("fleet.example.com", "/etc/osquery", '/');
        assert!(flags.starts_with("--tls_hostname=fleet.example.com:443\n"));
        for endpoint in [
            "=/enroll\n",
            "=/config\n",
            "=/log\n",
            "=/distributed/read\n",
            "=/distributed/write\n",
        ] {
            assert!(flags.contains(endpoint), "{endpoint}");
        }
        assert!(
            !flags.contains('"')
                && flagfile("[::1]:8443", "C:\\x", '\\').contains("--tls_hostname=[::1]:8443\n")
        );
    }
}
