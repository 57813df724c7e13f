//! How far long work has come, for whoever shows it: told by calls ([`Progress`]), or as a stream of
//! events ([`events`]).

use tokio::sync::mpsc;

/// Told of every download; called from several threads.
pub trait Progress: Send + Sync {
    /// Bytes are about to come, `total` of them when that is known.
    fn begin(&self, name: &str, total: Option<u64>);
    /// So many more bytes have come.
    fn advance(&self, name: &str, bytes: u64);
    /// That was all.
    fn end(&self, name: &str);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn end(&self, _: &str) {}
}

/// A step of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes are about to come, `total` of them when that is known.
    Begin {
        /// The file's name.
        name: String,
        /// Bytes, of all of it.
        total: Option<u64>,
    },
    /// So many more bytes have come.
    Advance {
        /// The file's name.
        name: String,
        /// Bytes.
        bytes: u64,
    },
    /// That was all, or it failed.
    End {
        /// The file's name.
        name: String,
    },
}

/// A [`Progress`] and the stream of what it is told. The stream ends when the first is dropped. Nothing
/// waits for whoever reads it: events that are not read gather in memory, a few hundred bytes for each
/// chunk that came.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use millstream_client::progress::{Event, Progress, events};
///
/// let (progress, mut stream) = events();
/// progress.begin("rootfs.tar.xz", Some(10));
/// drop(progress);
/// let begin = Event::Begin { name: "rootfs.tar.xz".into(), total: Some(10) };
/// assert_eq!(stream.next().await, Some(begin));
/// assert_eq!(stream.next().await, None);
/// # });
/// ```
pub fn events() -> (EventSender, EventStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (EventSender(sender), EventStream(receiver))
}

/// Turns what it is told into events.
#[derive(Clone, Debug)]
pub struct EventSender(mpsc::UnboundedSender<Event>);

/// Events in the order they happened.
#[derive(Debug)]
pub struct EventStream(mpsc::UnboundedReceiver<Event>);

impl EventStream {
    /// The next event, `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl Progress for EventSender {
    fn begin(&self, name: &str, total: Option<u64>) {
        // Nobody may listen any more.
        drop(self.0.send(Event::Begin { name: name.to_owned(), total }));
    }

    fn advance(&self, name: &str, bytes: u64) {
        drop(self.0.send(Event::Advance { name: name.to_owned(), bytes }));
    }

    fn end(&self, name: &str) {
        drop(self.0.send(Event::End { name: name.to_owned() }));
    }
}
