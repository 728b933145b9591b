//! Findings as issues of Jira: created when a finding opens, commented on when it is acknowledged or resolved, and then, if a
//! transition is named, moved on.
//!
//! An issue is found again by a label with the finding's id; so an attempt that is repeated makes no second one.
//!
//! What is told stands in a code block (Cloud: Atlassian Document Format; Data Center: `{noformat}`), so that nothing in it is markup.
//!
//! Source: developer.atlassian.com, "The Jira Cloud platform REST API v3" (issues, issue search, issue comments), "Atlassian Document
//! Format", and the REST API v2 of Jira Data Center.

use async_trait::async_trait;
use base64::Engine as _;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Destination, Field, Input, Kind, SettingsError, web_url};
use crate::http::Request;
use crate::{AlertKind, Message, Outbound, SendError, Told, one_line};

pub(super) const KIND: Kind = Kind::of::<Jira>(
    "jira",
    "Jira",
    "An issue per finding, with comments on what becomes of it.",
    &[
        Field::text(
            "site",
            "Site",
            "https://example.atlassian.net, or your own server's URL.",
        ),
        Field::new(
            "edition",
            "Edition",
            "",
            Input::Choice(&[("cloud", "Cloud"), ("data_center", "Data Center or Server")]),
        ),
        Field::text(
            "user",
            "User",
            "Cloud: the mail address of the account. Data Center: leave empty.",
        )
        .optional(),
        Field::secret(
            "token",
            "Token",
            "Cloud: an API token of the account. Data Center: a personal access token.",
        ),
        Field::text("project", "Project", "Its key, like SEC."),
        Field::text("issue_type", "Issue type", "As the project calls it.").or("Task"),
        Field::text(
            "resolve_transition",
            "Transition when resolved",
            "Its name, like Done. Empty: the issue gets a comment only.",
        )
        .optional(),
    ],
);

/// Jira's limit of a summary, and what we write into a description.
const MOST_OF_A_SUMMARY: usize = 250;
const MOST_OF_A_TEXT: usize = 20_000;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Edition {
    Cloud,
    DataCenter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jira {
    site: String,
    edition: Edition,
    #[serde(default)]
    user: String,
    #[serde(default)]
    token: SecretString,
    project: String,
    issue_type: String,
    #[serde(default)]
    resolve_transition: String,
}

/// An issue that there is.
struct Issue {
    key: String,
    is_done: bool,
}

impl Jira {
    fn url(&self, path: &str) -> Result<Url, SettingsError> {
        let site = web_url("site", &self.site)?;
        let version = match self.edition {
            Edition::Cloud => 3,
            Edition::DataCenter => 2,
        };
        let base = site.path().trim_end_matches('/').to_owned();
        let mut url = site;
        url.set_path(&format!("{base}/rest/api/{version}/{path}"));
        url.set_query(None);
        Ok(url)
    }

    async fn ask(
        &self,
        outbound: &Outbound,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, SendError> {
        let url = self.url(path).map_err(SendError::refused)?;
        let token = self.token.expose_secret();
        let authorization = match self.edition {
            Edition::Cloud => {
                let pair = format!("{}:{token}", self.user.trim());
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                format!("Basic {pair}")
            }
            Edition::DataCenter => format!("Bearer {token}"),
        };
        let request = Request {
            method: if body.is_some() {
                Method::POST
            } else {
                Method::GET
            },
            url: &url,
            headers: &[
                ("Authorization", authorization),
                ("Accept", "application/json".to_owned()),
            ],
            body: body
                .map(|body| body.to_string().into_bytes())
                .unwrap_or_default(),
        };
        Ok(outbound.http.send(request).await?.body)
    }

    async fn find(&self, outbound: &Outbound, label: &str) -> Result<Option<Issue>, SendError> {
        let path = match self.edition {
            Edition::Cloud => "search/jql",
            Edition::DataCenter => "search",
        };
        let wanted =
            json!({"jql": format!("labels = \"{label}\""), "fields": ["status"], "maxResults": 1});
        let answer = self.ask(outbound, path, Some(&wanted)).await?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|_| SendError::retry("the answer of the search cannot be read"))?;
        let issue = &answer["issues"][0];
        Ok(issue["key"].as_str().map(|key| Issue {
            key: one_line(key, 100),
            is_done: issue.pointer("/fields/status/statusCategory/key") == Some(&json!("done")),
        }))
    }

    async fn create(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let told = Told::of(message);
        let fields = json!({
            "project": {"key": self.project.trim()},
            "issuetype": {"name": self.issue_type.trim()},
            "summary": one_line(&told.title, MOST_OF_A_SUMMARY),
            "description": self.text(&told.text, &told.url),
            "labels": ["ostiary", message.dedup_key()],
        });
        let answer = self
            .ask(outbound, "issue", Some(&json!({"fields": fields})))
            .await?;
        let made: Value = serde_json::from_str(&answer).unwrap_or_default();
        let key = one_line(made["key"].as_str().unwrap_or("an issue"), 100);
        Ok(format!("{key} was created"))
    }

    async fn comment(
        &self,
        outbound: &Outbound,
        issue: &Issue,
        text: &str,
    ) -> Result<(), SendError> {
        let body = json!({"body": self.text(text, "")});
        let path = format!("issue/{}/comment", issue.key);
        self.ask(outbound, &path, Some(&body)).await.map(drop)
    }

    /// Moves the issue on, if a transition of that name leads from where it is.
    async fn resolve(&self, outbound: &Outbound, issue: &Issue) -> Result<String, SendError> {
        let wanted = self.resolve_transition.trim();
        if wanted.is_empty() || issue.is_done {
            return Ok(format!("{}: commented", issue.key));
        }
        let path = format!("issue/{}/transitions", issue.key);
        let answer = self.ask(outbound, &path, None).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let found = answer["transitions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|each| {
                each["name"]
                    .as_str()
                    .is_some_and(|name| name.eq_ignore_ascii_case(wanted))
            });
        let Some(id) = found.map(|transition| &transition["id"]) else {
            return Ok(format!(
                "{}: commented; it has no transition \"{wanted}\" now",
                issue.key
            ));
        };
        let body = json!({"transition": {"id": id}});
        self.ask(outbound, &path, Some(&body)).await?;
        Ok(format!(
            "{}: commented and moved on by \"{wanted}\"",
            issue.key
        ))
    }

    /// A text in which nothing is markup, and a link of ours.
    fn text(&self, text: &str, url: &str) -> Value {
        let text: String = text.trim().chars().take(MOST_OF_A_TEXT).collect();
        match self.edition {
            Edition::Cloud => {
                let mut content = vec![json!({
                    "type": "codeBlock", "attrs": {"language": "text"}, "content": [{"type": "text", "text": text}],
                })];
                if !url.is_empty() {
                    let marks = json!([{"type": "link", "attrs": {"href": url}}]);
                    content.push(json!({
                        "type": "paragraph", "content": [{"type": "text", "text": "Open the finding", "marks": marks}],
                    }));
                }
                json!({"type": "doc", "version": 1, "content": content})
            }
            Edition::DataCenter => {
                // The block ends only by its own word.
                let text = text.replace("{noformat", "{ noformat");
                let link = if url.is_empty() {
                    String::new()
                } else {
                    format!("\n[Open the finding|{url}]")
                };
                format!("{{noformat}}\n{text}\n{{noformat}}{link}").into()
            }
        }
    }
}

impl Check for Jira {
    fn check(&self) -> Result<(), SettingsError> {
        self.url("")?;
        if self.edition == Edition::Cloud && !self.user.contains('@') {
            let problem = "the Cloud wants the mail address of the token's account";
            return Err(SettingsError::of("user", problem));
        }
        if self.token.expose_secret().is_empty() {
            return Err(SettingsError::of("token", "a token is missing"));
        }
        let project = self.project.trim();
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if project.is_empty() || !project.chars().all(is_key) {
            let problem = "a key of a project has letters, digits and _";
            return Err(SettingsError::of("project", problem));
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for Jira {
    fn summary(&self) -> String {
        let host = web_url("site", &self.site)
            .map(|url| url.host_str().unwrap_or_default().to_owned())
            .unwrap_or_default();
        one_line(&format!("project {} at {host}", self.project.trim()), 200)
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let found = self.find(outbound, &message.dedup_key()).await?;
        match (message.kind, found) {
            (AlertKind::Opened | AlertKind::Test, None) => self.create(outbound, message).await,
            (AlertKind::Opened | AlertKind::Test, Some(issue)) if issue.is_done => {
                let text = format!("Open again.\n\n{}", Told::of(message).text);
                self.comment(outbound, &issue, &text).await?;
                Ok(format!("{}: commented that it is open again", issue.key))
            }
            (AlertKind::Opened | AlertKind::Test, Some(issue)) => {
                Ok(format!("{} is there already", issue.key))
            }
            (AlertKind::Acknowledged | AlertKind::Resolved, None) => {
                Ok("there is no issue of this finding".to_owned())
            }
            (kind, Some(issue)) => {
                let by = message
                    .alert
                    .change
                    .as_ref()
                    .map(|change| change.by.as_str());
                let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
                let word = if kind == AlertKind::Resolved {
                    "Resolved"
                } else {
                    "Acknowledged"
                };
                self.comment(outbound, &issue, &format!("{word}{by} in Ostiary."))
                    .await?;
                match kind {
                    AlertKind::Resolved => self.resolve(outbound, &issue).await,
                    _ => Ok(format!("{}: commented", issue.key)),
                }
            }
        }
    }
}
