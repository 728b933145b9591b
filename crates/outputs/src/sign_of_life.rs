//! A sign of life: the call that whoever watches over Ostiary expects, and whose absence it tells people of.

use reqwest::{Method, Url};

use crate::http::Request;
use crate::{Outbound, SendError};

impl Outbound {
    /// Calls a URL by GET. Gives the answer, in short.
    ///
    /// # Errors
    /// As for destinations: the URL is none, its address is refused, or it does not answer with a 2xx status.
    pub async fn sign_of_life(&self, url: &str) -> Result<String, SendError> {
        // What is wrong with it is not said: the URL is a secret.
        let url = Url::parse(url).map_err(|_| SendError::refused("it is no URL".to_owned()))?;
        let request = Request {
            method: Method::GET,
            url: &url,
            headers: &[],
            body: Vec::new(),
        };
        Ok(self.http.send(request).await?.told())
    }
}
