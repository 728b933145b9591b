//! The manager's forms, as a person's browser posts them, without a browser.

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};

use crate::World;

/// Somebody who is signed in.
#[derive(Debug)]
pub struct Forms {
    base: String,
    client: reqwest::Client,
    cookie: String,
    csrf: String,
}

/// What came back.
#[derive(Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// Where it leads, if it does.
    pub location: String,
    /// The page.
    pub body: String,
}

impl Forms {
    /// Signs in as the admin of the world.
    ///
    /// # Panics
    /// The manager does not answer, or refuses.
    pub async fn sign_in(world: &World) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the TLS library works");
        let mut forms = Self {
            base: format!("http://{}", world.manager),
            client,
            cookie: String::new(),
            csrf: String::new(),
        };
        forms.get("/sign-in").await;
        let (user, password) = world.admin();
        let fields = [("name", user), ("password", password)];
        let page = forms.post("/sign-in", &fields).await;
        assert_eq!(page.status, 303, "{}", page.body);
        forms.get("/account").await;
        forms
    }

    /// Looks at a page.
    ///
    /// # Panics
    /// The manager does not answer.
    pub async fn get(&mut self, path: &str) -> Page {
        let request = self.client.get(format!("{}{path}", self.base));
        let page = self.send(request).await;
        let marker = ["X-CSRF-Token&quot;: &quot;", "X-CSRF-Token\": \""]
            .into_iter()
            .find_map(|marker| page.body.split_once(marker));
        if let Some((_, rest)) = marker {
            self.csrf = rest.split(['"', '&']).next().unwrap_or_default().to_owned();
        }
        page
    }

    /// Posts a form.
    ///
    /// # Panics
    /// The manager does not answer.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let encode = |text: &str| {
            text.bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect::<String>()
        };
        let pairs: Vec<String> = fields
            .iter()
            .chain([&("csrf", self.csrf.as_str())])
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", &self.base)
            .body(pairs.join("&"));
        self.send(request).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Page {
        let response = request.header(COOKIE, &self.cookie).send().await;
        let response = response.expect("the manager answers");
        let text = |name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        if let Some(cookie) = text(SET_COOKIE) {
            self.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        }
        Page {
            status: response.status().as_u16(),
            location: text(LOCATION).unwrap_or_default(),
            body: response.text().await.expect("the page can be read"),
        }
    }
}
