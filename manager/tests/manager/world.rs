//! A manager with a database of its own, and a browser of few talents.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use ostiary_boot::clock::{Clock as _, SystemClock};
use ostiary_boot::seal::Key;
use ostiary_domain::clock::TestClock;
use ostiary_manager::actions::api_tokens::{self, TokenDraft};
use ostiary_manager::actions::users::{self, UserDraft};
use ostiary_manager::auth::{Admin, Permit};
use ostiary_manager::router::router;
use ostiary_manager::settings::{KeyOptions, Settings};
use ostiary_manager::state::App;
use ostiary_store::testing::TestDb;
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct World {
    pub(crate) test_db: TestDb,
    pub(crate) app: App,
    pub(crate) clock: Arc<TestClock>,
    router: Router,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) location: String,
    pub(crate) cookie: Option<String>,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn settings(url: &str) -> Settings {
    let text = format!(
        "{}\n",
        ostiary_boot::settings::DEFAULTS
            .replace(
                "enroll = \"\"",
                &format!("enroll = \"{}\"", "11".repeat(32))
            )
            .replace(
                "destinations = \"\"",
                &format!("destinations = \"{}\"", "22".repeat(32))
            )
    );
    let file = std::env::temp_dir().join(format!(
        "ostiary-manager-test-{}.toml",
        ostiary_boot::clock::new_id()
    ));
    std::fs::write(&file, text).unwrap();
    let arguments = ostiary_boot::settings::SettingsArgs {
        file: Some(file.clone()),
    };
    let mut settings: Settings = ostiary_boot::settings::load(&arguments).unwrap();
    std::fs::remove_file(file).unwrap();
    settings.database = ostiary_store::Options::at(url);
    settings.keys = KeyOptions {
        enroll: Key::new(&[1; 32]),
        destinations: Key::new(&[2; 32]),
    };
    settings.manager.sign_in_attempts_per_user = 3;
    settings
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let test_db = TestDb::new().await;
        let clock = Arc::new(TestClock::at(SystemClock.now()));
        let mut settings = settings(&test_db.url(Some("ostiary_manager")));
        change(&mut settings);
        // Says why an answer is a 500. Another test may have started it already.
        let _ = ostiary_boot::telemetry::start(&settings.log);
        let app = App::new(test_db.as_role("ostiary_manager"), settings, clock.clone());
        Self {
            router: router(app.clone()),
            app,
            clock,
            test_db,
        }
    }

    pub(crate) async fn user(&self, name: &str, role: &str) {
        let draft = UserDraft {
            name: name.into(),
            email: String::new(),
            role: role.into(),
        };
        users::create(&self.app, &Permit::<Admin>::for_command(), &draft, PASSWORD)
            .await
            .unwrap();
    }

    pub(crate) async fn token(&self, user: &str) -> String {
        let found =
            ostiary_store::users::find_credentials(&mut self.app.db.acquire().await.unwrap(), user)
                .await
                .unwrap();
        let draft = TokenDraft {
            name: "test".into(),
            expires_days: String::new(),
        };
        let user = ostiary_domain::ids::UserId(found.unwrap().id);
        api_tokens::create_for(&self.app, &Permit::<Admin>::for_command(), user, &draft)
            .await
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = |name| {
            parts
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            location: text(header::LOCATION).unwrap_or_default(),
            cookie: text(header::SET_COOKIE),
            headers: parts.headers.clone(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// A browser that has signed in.
    pub(crate) async fn browser(&self, name: &str) -> Browser<'_> {
        let mut browser = Browser::new(self);
        let answer = browser.sign_in(name, PASSWORD).await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (StatusCode::SEE_OTHER, "/"),
            "{}",
            answer.body
        );
        browser
    }

    /// A user of this role, in a browser.
    pub(crate) async fn browser_as(&self, role: &str) -> Browser<'_> {
        self.user(role, role).await;
        self.browser(role).await
    }

    pub(crate) async fn get_json(&self, path: &str, token: &str) -> Answer {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty());
        self.send(request.unwrap()).await
    }

    pub(crate) async fn post_json(
        &self,
        path: &str,
        token: &str,
        body: &serde_json::Value,
    ) -> Answer {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    pub(crate) async fn end(self) {
        self.app.db.close().await;
        self.test_db.drop().await;
    }
}

pub(crate) struct Browser<'w> {
    world: &'w World,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

impl<'w> Browser<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self {
            world,
            cookie: String::new(),
            csrf: String::new(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path)
            .header(header::COOKIE, &self.cookie)
            .body(Body::empty())
            .unwrap();
        let answer = self.world.send(request).await;
        self.remember(&answer);
        if let Some((_, rest)) = answer
            .body
            .split_once("X-CSRF-Token&quot;: &quot;")
            .or_else(|| answer.body.split_once("X-CSRF-Token\": \""))
        {
            self.csrf = rest.split(['"', '&']).next().unwrap().to_owned();
        }
        answer
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf.clone();
        self.post_with(path, fields, &[], &csrf).await
    }

    pub(crate) async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
        csrf: &str,
    ) -> Answer {
        let encode = ostiary_manager::views::urlencode;
        let mut pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        pairs.push(format!("csrf={}", encode(csrf)));
        let mut request = Request::post(path)
            .header(header::COOKIE, &self.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self
            .world
            .send(request.body(Body::from(pairs.join("&"))).unwrap())
            .await;
        self.remember(&answer);
        answer
    }

    /// Sends a multipart form with a file.
    pub(crate) async fn upload(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        file: (&str, &str),
    ) -> Answer {
        let csrf = self.csrf.clone();
        let mut body = String::new();
        for (name, value) in fields.iter().copied().chain([("csrf", csrf.as_str())]) {
            body.push_str(&format!(
                "--line\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        let (name, text) = file;
        body.push_str(&format!(
            "--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{text}\r\n--line--\r\n"
        ));
        let request = Request::post(path)
            .header(header::COOKIE, &self.cookie)
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=line");
        self.world
            .send(request.body(Body::from(body)).unwrap())
            .await
    }

    pub(crate) async fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        self.get("/sign-in").await;
        let answer = self
            .post("/sign-in", &[("name", name), ("password", password)])
            .await;
        if answer.status == StatusCode::SEE_OTHER {
            self.get("/account").await;
        }
        answer
    }

    fn remember(&mut self, answer: &Answer) {
        if let Some(cookie) = &answer.cookie {
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
    }
}
