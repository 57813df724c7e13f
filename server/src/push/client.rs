//! The builder's side of a push.
//!
//! What the server has is asked for, never assumed, so that whatever was cut off goes on there: also by
//! another run of the program, as the same image by the same pusher is the same upload.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_client::http::{BackOff, Question, Reply, Retry};
use millstream_client::remotes::parse_url;
use millstream_client::{Access, HttpClient, HttpOptions, Progress};
use millstream_image::{Fingerprint, Product, Serial, Sha256Digest};
use serde::de::DeserializeOwned;

use super::wire::{Announcement, Outcome, PATH, PIECE, Part, Problem, State, Taken};
use crate::stream::{self, artefacts};
use crate::{Error, Result};

/// The first piece of a file, in bytes; later ones are as large as the connection is fast.
const FIRST: u64 = 1 << 20;
/// The smallest.
const SMALLEST: u64 = 64 << 10;
/// A piece that took less than the one is followed by a larger one, more than the other by a smaller.
const BRISK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(8);
/// How long an answer may take, besides what its question's bytes need at [`LEAST`] a second.
const PATIENCE: Duration = Duration::from_mins(1);
const LEAST: u64 = 8 << 10;
/// Most bytes of an answer.
const ANSWER: usize = 64 << 10;
/// Most letters of a server's reason that are shown.
const REASON: usize = 500;
/// How long the server may take to check and publish.
const PUBLISHING: Duration = Duration::from_hours(1);
/// How often an upload that went missing or came damaged is begun again.
const ROUNDS: u32 = 4;
const JSON: &str = "application/json";

/// Tries for a server that is being restarted: about half a minute.
pub const RETRY: Retry = Retry { tries: 6, pause: Duration::from_millis(300) };

/// A server to push to.
#[derive(Clone, Debug)]
pub struct Pusher {
    http: HttpClient,
    /// Ends in no slash.
    base: String,
    retry: Retry,
}

/// What became of an image that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of which product.
    pub product: Product,
    /// Which image.
    pub serial: Serial,
    /// By which clients know it; what was sent has this one.
    pub fingerprint: Fingerprint,
    /// Where its directory is, or will be.
    pub url: String,
    /// False when the server had the very same image already.
    pub new: bool,
    /// Whether documents list it; else it waits for whoever has the server's key.
    pub published: bool,
}

/// An image here.
struct Local<'a> {
    dir: &'a Path,
    announcement: Announcement,
    fingerprint: Fingerprint,
}

impl Pusher {
    /// Pushes to the server at `url`, reached with `access`; it may have a private authority's certificate.
    ///
    /// # Errors
    /// When the URL is none of a server, or a file of secrets cannot be used.
    pub fn new(url: &str, ca: Option<&String>, access: &Access, retry: Retry) -> Result<Self> {
        let url = parse_url(url)?;
        if url.scheme() == "file" {
            let reason = "a directory is no server; publish there with: millstream stream add ROOT DIR";
            return Err(Error::Push { url: url.to_string(), reason: reason.into() });
        }
        let http = access.client(&url, ca, &HttpOptions::default())?;
        Ok(Self { http, base: url.as_str().trim_end_matches('/').to_owned(), retry })
    }

    /// Pushes the image in `dir`, a directory that a build finished. The server has it whole, checked and
    /// published, when this returns; or nobody sees anything of it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the image is damaged or incomplete here, [`Error::Push`] when the server does
    /// not take it, [`Error::Upstream`] when it cannot be reached. Pushing again goes on where that was.
    pub async fn push(&self, dir: &Path, progress: &dyn Progress) -> Result<Pushed> {
        let image = tokio::task::block_in_place(|| Local::read(dir))?;
        let mut last = None;
        for _ in 0..ROUNDS {
            match self.round(&image, progress).await? {
                Round::Done(state) => return self.pushed(&image, state),
                Round::Again(problem) => last = Some(problem),
            }
        }
        Err(self.said(PATH, &last.unwrap_or_default()))
    }

    /// From announcement to end. What the server lost, or found damaged, is worth another round.
    async fn round(&self, image: &Local<'_>, progress: &dyn Progress) -> Result<Round> {
        let (id, offsets) = match self.announce(image).await? {
            State::Open { id, offsets } => (id, offsets),
            state => return Ok(Round::Done(state)),
        };
        for (name, part) in &image.announcement.files {
            let at = offsets.get(name).copied().unwrap_or_default();
            if at < part.size
                && let Some(problem) = self.send(image, id, (name, part.size), at, progress).await?
            {
                return Ok(Round::Again(problem));
            }
        }
        self.finish(id).await
    }

    async fn announce(&self, image: &Local<'_>) -> Result<State> {
        let text = serde_json::to_vec(&image.announcement).unwrap_or_default();
        match self.ask("POST", PATH, JSON, &text).await? {
            Answer::Good(state) => Ok(state),
            Answer::Refused(404, _) => {
                let reason =
                    "it takes no pushes; its operator allows them with right = \"push\" in an [[access]]";
                Err(self.said(PATH, reason))
            }
            Answer::Refused(401, _) => {
                let reason = "it does not know you; show what it knows you by with --token-file or --client-certificate";
                Err(self.said(PATH, reason))
            }
            Answer::Refused(_, Problem { error, .. }) => Err(self.said(PATH, &error)),
        }
    }

    /// Sends a file from byte `at` on; what is wrong when the upload has gone.
    async fn send(
        &self,
        image: &Local<'_>,
        id: Sha256Digest,
        (name, size): (&str, u64),
        mut at: u64,
        progress: &dyn Progress,
    ) -> Result<Option<String>> {
        let path = image.dir.join(name);
        let file = File::open(&path).map_err(Error::io(&path))?;
        progress.begin(name, Some(size - at));
        let (mut length, mut back_off) = (FIRST, BackOff::new(self.retry));
        while at < size {
            let mut bytes = vec![0; length.min(size - at) as usize];
            file.read_exact_at(&mut bytes, at).map_err(Error::io(&path))?;
            let (target, began) = (format!("{PATH}/{id}/{name}?offset={at}"), Instant::now());
            let sent = self.try_ask::<Taken>("PATCH", &target, "application/octet-stream", &bytes).await?;
            length = match began.elapsed() {
                took if sent.is_err() || took > SLOW => (length / 2).max(SMALLEST),
                took if took < BRISK => (length * 2).min(PIECE),
                _ => length,
            };
            let next = match sent {
                Ok(Answer::Good(taken)) => taken.offset,
                Ok(Answer::Refused(404, Problem { error, .. })) => return Ok(Some(error)),
                // Others may be sending the same image.
                Ok(Answer::Refused(409, Problem { offset: Some(offset), error })) => {
                    if offset <= at {
                        back_off.pause_or(self.said(&target, &error)).await?;
                    }
                    offset
                }
                Ok(Answer::Refused(_, Problem { error, .. })) => return Err(self.said(&target, &error)),
                // Part of it may have come.
                Err(error) => {
                    back_off.pause_or(error).await?;
                    match self.announce(image).await? {
                        State::Open { offsets, .. } => offsets.get(name).copied().unwrap_or_default(),
                        _ => return Ok(Some("somebody else pushed it meanwhile".into())),
                    }
                }
            };
            if next > size {
                return Err(self.said(&target, "it says that more has come than was sent"));
            }
            if next > at {
                back_off = BackOff::new(self.retry);
                progress.advance(name, next - at);
            }
            at = next;
        }
        progress.end(name);
        Ok(None)
    }

    /// Asks for the end until it has come.
    async fn finish(&self, id: Sha256Digest) -> Result<Round> {
        let (target, began) = (format!("{PATH}/{id}/finish"), Instant::now());
        loop {
            match self.ask::<State>("POST", &target, JSON, b"").await? {
                Answer::Good(State::Publishing) if began.elapsed() < PUBLISHING => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Answer::Good(State::Publishing) => {
                    return Err(self.said(&target, "it does not come to an end with publishing"));
                }
                Answer::Good(state) => return Ok(Round::Done(state)),
                // Gone: published for another one who sent the same, perhaps. Incomplete or damaged: once more.
                Answer::Refused(404 | 409, Problem { error, .. }) => return Ok(Round::Again(error)),
                Answer::Refused(_, Problem { error, .. }) => return Err(self.said(&target, &error)),
            }
        }
    }

    /// Checks that what the server has is what was sent.
    fn pushed(&self, image: &Local<'_>, state: State) -> Result<Pushed> {
        let (Outcome { product, serial, fingerprint, new }, published) = match state {
            State::Published(outcome) => (outcome, true),
            State::Waiting(outcome) => (outcome, false),
            State::Open { .. } | State::Publishing => {
                return Err(self.said(PATH, "it does not say what became of the image"));
            }
        };
        let Announcement { product: sent, serial: sent_serial, .. } = &image.announcement;
        let same = fingerprint.map_or(!published, |fingerprint| fingerprint == image.fingerprint);
        if (&product, &serial) != (sent, sent_serial) || !same {
            let reason = format!("it published another image than was sent, {product} {serial}");
            return Err(self.said(PATH, &reason));
        }
        let url = format!("{}/{}", self.base, product.image_path(serial).display());
        Ok(Pushed { product, serial, fingerprint: image.fingerprint, url, new, published })
    }

    /// One question, asked again when that may help.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        media: &'static str,
        body: &[u8],
    ) -> Result<Answer<T>> {
        let mut back_off = BackOff::new(self.retry);
        loop {
            match self.try_ask(method, target, media, body).await? {
                Ok(answer) => return Ok(answer),
                Err(passing) => back_off.pause_or(passing).await?,
            }
        }
    }

    /// The inner error is one that may pass.
    async fn try_ask<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        media: &'static str,
        body: &[u8],
    ) -> Result<Result<Answer<T>>> {
        let url = format!("{}{target}", self.base);
        let limit = PATIENCE + Duration::from_secs(body.len() as u64 / LEAST);
        let question = Question { method, url: &url, media, body: body.to_vec(), limit };
        match self.http.exchange(question, ANSWER).await {
            Ok(reply) if matches!(reply.status, 408 | 429 | 500..=506) => {
                Ok(Err(self.said(target, &refusal(&reply).error)))
            }
            Ok(reply) if (200..300).contains(&reply.status) => match serde_json::from_slice(&reply.body) {
                Ok(good) => Ok(Ok(Answer::Good(good))),
                Err(_) => Err(self.said(target, "its answer is not that of a Millstream server")),
            },
            Ok(reply) => Ok(Ok(Answer::Refused(reply.status, refusal(&reply)))),
            Err(error) if error.is_passing() => Ok(Err(error.into())),
            Err(error) => Err(error.into()),
        }
    }

    fn said(&self, target: &str, reason: &str) -> Error {
        let target = target.split('?').next().unwrap_or(target);
        Error::Push { url: format!("{}{target}", self.base), reason: reason.to_owned() }
    }
}

/// How a round ended.
enum Round {
    Done(State),
    /// Why it is worth another one.
    Again(String),
}

enum Answer<T> {
    Good(T),
    /// Status, and why.
    Refused(u16, Problem),
}

/// Why a server refuses. What it says is shown to people, so nothing in it may move their cursor.
fn refusal(reply: &Reply) -> Problem {
    match serde_json::from_slice(&reply.body) {
        Ok(Problem { error, offset }) => {
            let error = error.chars().take(REASON).flat_map(char::escape_debug).collect::<String>();
            Problem { error: error.replace("\\\"", "\"").replace("\\'", "'"), offset }
        }
        Err(_) => Problem { error: format!("the server answered {}", reply.status), offset: None },
    }
}

impl<'a> Local<'a> {
    /// Hashes the files and checks them against the manifest, so that nothing is sent in vain.
    fn read(dir: &'a Path) -> Result<Self> {
        let (manifest, names) = artefacts(dir)?;
        let metadata = dir.join("lxd.tar.xz");
        let (mut files, mut fingerprint) = (BTreeMap::new(), None);
        for name in names {
            let prefixes = if name == "rootfs.tar.xz" { std::slice::from_ref(&metadata) } else { &[] };
            let (sha256, size, combined) = stream::hash(&dir.join(&name), prefixes)?;
            if let Some(promised) = manifest.files.get(&name)
                && (promised.size, promised.sha256) != (size, sha256)
            {
                let reason = format!("{name} is not what its manifest says; build it anew");
                return Err(Error::Refused { dir: dir.to_owned(), reason });
            }
            fingerprint = combined.first().copied().map(Fingerprint::new).or(fingerprint);
            files.insert(name, Part { size, sha256 });
        }
        let missing = || Error::Refused { dir: dir.to_owned(), reason: "it has no rootfs.tar.xz".into() };
        let fingerprint = fingerprint.ok_or_else(missing)?;
        let announcement = Announcement { product: manifest.product, serial: manifest.serial, files };
        Ok(Self { dir, announcement, fingerprint })
    }
}
