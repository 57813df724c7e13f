//! A response's body, read at a least pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;

use super::rate::Rate;
use super::{HttpClient, Pace, network, silent};
use crate::Result;

pub(crate) struct Body<'a> {
    url: &'a str,
    response: Response,
    pace: Pace,
    waited: Duration,
    came: u64,
    rate: Option<Arc<Rate>>,
}

impl<'a> Body<'a> {
    pub(super) fn new(url: &'a str, response: Response, http: &HttpClient) -> Self {
        let (pace, rate) = (http.pace, http.rate.clone());
        Self { url, response, pace, rate, waited: Duration::ZERO, came: 0 }
    }

    /// The next bytes, `None` at the end. Counts only the time spent waiting for the server.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let left = self.pace.window.saturating_sub(self.waited);
        let answer = tokio::time::timeout(left, self.response.chunk()).await;
        let chunk = answer.map_err(|_| silent(self.url, self.pace))?.map_err(|e| network(self.url, &e))?;
        self.waited += began.elapsed();
        self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.came >= self.pace.bytes {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        if let (Some(rate), Some(chunk)) = (&self.rate, &chunk) {
            rate.spend(chunk.len() as u64).await;
        }
        Ok(chunk)
    }
}
