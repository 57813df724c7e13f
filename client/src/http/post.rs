//! Telling a server something.

use reqwest::header::CONTENT_TYPE;

use super::{BackOff, HttpClient, check_url, network, shown, silent};
use crate::{Error, Result};

impl HttpClient {
    /// Sends JSON to a URL. Only the answer's status counts; its body is not read. Tried again as
    /// [`HttpClient::document`] is.
    pub async fn post_json(&self, url: &str, json: &[u8]) -> Result<()> {
        check_url(url)?;
        let mut back_off = BackOff::new(self.retry);
        loop {
            match self.try_post(url, json).await {
                Err(error) if error.is_passing() => back_off.pause_or(error).await?,
                other => return other,
            }
        }
    }

    async fn try_post(&self, url: &str, json: &[u8]) -> Result<()> {
        let request = self.inner.post(url).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(json.to_vec());
        let answer = tokio::time::timeout(self.pace.window, request.send()).await;
        let response = answer.map_err(|_| silent(url, self.pace))?.map_err(|e| network(url, &e))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Error::Status { url: shown(url), status: status.as_u16() }),
        }
    }
}
