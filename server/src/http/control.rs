//! What a running server can be asked to do.

use tokio::sync::{mpsc, oneshot};

use super::certificate::Tls;
use super::gate::Gate;
use crate::Result;

/// What a server takes over while it runs: from then on for new connections and requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Encryption; its files are read again.
    pub tls: Tls,
    /// Who may come in, and how often.
    pub gate: Gate,
}

/// Speaks to a running server.
#[derive(Clone, Debug)]
pub struct Control(pub(super) mpsc::Sender<Order>);

pub(super) enum Order {
    Reload(Settings, oneshot::Sender<Result<()>>),
    Answer(oneshot::Sender<()>),
}

impl Control {
    /// Gives the server other settings; `false` when it runs no more.
    ///
    /// # Errors
    /// [`crate::Error::Tls`]: then everything stays as it was.
    pub async fn reload(&self, settings: Settings) -> Result<bool> {
        match self.ask(|answer| Order::Reload(settings, answer)).await {
            Some(done) => done.map(|()| true),
            None => Ok(false),
        }
    }

    /// Returns once the server goes on taking connections; `false` when it runs no more.
    pub async fn answers(&self) -> bool {
        self.ask(Order::Answer).await.is_some()
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(order(answer)).await.ok()?;
        answered.await.ok()
    }
}
