//! The manager's REST, as a program uses it.

use serde_json::Value;

/// A client with a token.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    token: String,
    client: reqwest::Client,
}

impl Rest {
    /// Speaks to the manager at `base`.
    ///
    /// # Panics
    /// The TLS library cannot be set up.
    #[must_use]
    pub fn new(base: String, token: String) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("the TLS library works");
        Self {
            base,
            token,
            client,
        }
    }

    /// GETs `/api/v1/<path>`.
    ///
    /// # Panics
    /// The answer is no success or no JSON.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}/api/v1/{path}", self.base);
        let response = self
            .client
            .get(&url)
            .bearer_auth(&self.token)
            .send()
            .await
            .expect("the manager answers");
        let status = response.status();
        let text = response.text().await.expect("the answer can be read");
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error} in {text}"))
    }

    /// GETs bytes from `/api/v1/<path>`, with the name under which a browser would save them.
    ///
    /// # Panics
    /// The answer is no success, or no file.
    pub async fn download(&self, path: &str) -> (String, Vec<u8>) {
        let url = format!("{}/api/v1/{path}", self.base);
        let request = self.client.get(&url).bearer_auth(&self.token);
        let response = request.send().await.expect("the manager answers");
        assert!(
            response.status().is_success(),
            "{url}: {}",
            response.status()
        );
        let name = response
            .headers()
            .get("content-disposition")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("attachment; filename=\""))
            .and_then(|value| value.strip_suffix('"'))
            .expect("it is a file")
            .to_owned();
        let bytes = response.bytes().await.expect("the answer can be read");
        (name, bytes.to_vec())
    }

    /// POSTs JSON to `/api/v1/<path>`.
    ///
    /// # Panics
    /// The answer is no success or no JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/api/v1/{path}", self.base);
        let request = self.client.post(&url).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await;
        let response = response.expect("the manager answers");
        let status = response.status();
        let text = response.text().await.expect("the answer can be read");
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error} in {text}"))
    }

    /// All items of a list, page by page.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page = self
                .get(&format!("{path}{separator}limit=500{after}"))
                .await;
            items.extend(
                page["items"]
                    .as_array()
                    .expect("a list has items")
                    .iter()
                    .cloned(),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return items,
            }
        }
    }
}
