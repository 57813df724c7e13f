//! Replacing one object so that no writer loses another's work.
//!
//! A store with conditional writes does it in one step. One without takes flags: each writer raises one
//! (writes an object of its own), then looks for others'. Whoever sees another lowers its own and tries
//! again later. Of two writers, each raised its flag before it looked, so at least one sees the other:
//! never do both go on. That takes what every store promises, that what was written is then listed.
//! A writer that died leaves its flag, which counts for nothing after [`STALE`]; a write takes less.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tokio_util::bytes::Bytes;

use super::{Condition, Storage, Tag};
use crate::{Error, Result};

/// Where flags are.
const FLAGS: &str = "flags";
/// From when a flag counts for nothing. Longer than [`HOLD`], with room for clocks of several nodes.
const STALE: Duration = Duration::from_mins(2);
/// A writer that holds its flag for longer gives up without having written.
const HOLD: Duration = Duration::from_mins(1);
/// Of those, the last write may take so long.
const WRITE: Duration = Duration::from_secs(30);
/// So long a writer waits for others at most.
const PATIENCE: Duration = Duration::from_mins(5);

/// How writers of one store keep out of each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exclusion {
    /// The store looks at conditions.
    Conditional,
    /// It writes whatever the condition.
    Flags,
}

impl Exclusion {
    /// Finds out, by two writes that must fail, to an object named after `id`.
    pub(crate) async fn of(storage: &dyn Storage, id: &str) -> Result<Self> {
        let probe = format!("probe-{id}");
        let bytes = || Bytes::from_static(b"probe");
        storage.write(&probe, bytes(), Condition::Always).await?;
        let other = Tag("\"00000000000000000000000000000000\"".into());
        let ignored = storage.write(&probe, bytes(), Condition::New).await?
            || storage.write(&probe, bytes(), Condition::Same(other)).await?;
        storage.delete(&probe).await?;
        Ok(if ignored { Self::Flags } else { Self::Conditional })
    }
}

/// Writes `key` if it still is in the state `before` (`None`: not there); false when it is not. `id` is the
/// writer's own.
///
/// # Errors
/// As the storage, and when other writers do not come to an end.
pub async fn replace(
    storage: &dyn Storage,
    (key, bytes): (&str, Bytes),
    before: Option<&Tag>,
    (how, id): (Exclusion, &str),
) -> Result<bool> {
    let condition = before.map_or(Condition::New, |tag| Condition::Same(tag.clone()));
    if how == Exclusion::Conditional {
        return storage.write(key, bytes, condition).await;
    }
    let since = SystemTime::now();
    let flag = format!("{FLAGS}/{id}");
    for tries in 0_u64.. {
        let raised = SystemTime::now();
        storage.write(&flag, Bytes::from_static(b"1"), Condition::Always).await?;
        if alone(storage, &flag).await? {
            let written = write(storage, (key, bytes), before, raised).await;
            if written.is_ok() {
                // One that stays only makes others wait. Nobody knows when a write that failed is over.
                let _ = storage.delete(&flag).await;
            }
            return written;
        }
        storage.delete(&flag).await?;
        if since.elapsed().unwrap_or_default() > PATIENCE {
            break;
        }
        sleep(pause(id, tries)).await;
    }
    Err(Error::storage(storage.name(), "others publish without end; try again later"))
}

async fn alone(storage: &dyn Storage, flag: &str) -> Result<bool> {
    let flags = storage.list(FLAGS).await?;
    // All times are the store's.
    let Some(own) = flags.iter().find(|found| found.key == flag).map(|found| found.modified) else {
        return Err(Error::storage(storage.name(), "the store does not list what was just written to it"));
    };
    let counts = |age: Result<Duration, _>| age.map_or(true, |age| age < STALE);
    Ok(!flags.iter().any(|other| other.key != flag && counts(own.duration_since(other.modified))))
}

async fn write(
    storage: &dyn Storage,
    (key, bytes): (&str, Bytes),
    before: Option<&Tag>,
    raised: SystemTime,
) -> Result<bool> {
    let late = || Error::storage(storage.name(), "the store is too slow to publish safely; try again");
    let present = storage.read(key, u64::MAX).await?.map(|(_, tag)| tag);
    if present.as_ref() != before {
        return Ok(false);
    }
    if raised.elapsed().unwrap_or(HOLD) + WRITE > HOLD {
        return Err(late());
    }
    timeout(WRITE, storage.write(key, bytes, Condition::Always)).await.map_err(|_| late())?
}

/// Longer with each try, and different for each writer.
fn pause(id: &str, tries: u64) -> Duration {
    let salt = id.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let spread = salt.rotate_left(tries as u32 * 7) % 100;
    Duration::from_millis(20 + spread * (1 + tries.min(10)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::path::Path;
    use std::sync::{Arc, Mutex, MutexGuard};

    use futures_util::FutureExt;
    use url::Url;

    use super::*;
    use crate::storage::{Answer, Directory, Pieces, Stored};

    /// A store that looks at no condition, and does one thing at a time.
    #[derive(Debug, Default)]
    struct Careless(Mutex<BTreeMap<String, (Bytes, SystemTime)>>);

    impl Careless {
        fn objects(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, SystemTime)>> {
            self.0.lock().unwrap()
        }
    }

    /// An answer that lets others come between.
    fn later<'a, T: Send + 'a>(work: impl FnOnce() -> T + Send + 'a) -> Answer<'a, T> {
        async move {
            tokio::task::yield_now().await;
            let done = work();
            tokio::task::yield_now().await;
            Ok(done)
        }
        .boxed()
    }

    impl Storage for Careless {
        fn name(&self) -> String {
            "careless".into()
        }

        fn read<'a>(&'a self, key: &'a str, _: u64) -> Answer<'a, Option<(Bytes, Tag)>> {
            later(move || {
                let found = self.objects().get(key)?.0.clone();
                let tag = Tag(String::from_utf8_lossy(&found).into_owned());
                Some((found, tag))
            })
        }

        fn stream<'a>(&'a self, _: &'a str, _: Range<u64>) -> Answer<'a, Pieces> {
            async { Err(Error::storage("careless", "no streams")) }.boxed()
        }

        fn write<'a>(&'a self, key: &'a str, bytes: Bytes, _: Condition) -> Answer<'a, bool> {
            later(move || self.objects().insert(key.into(), (bytes, SystemTime::now())).is_none_or(|_| true))
        }

        fn send<'a>(&'a self, _: &'a str, _: &'a Path) -> Answer<'a, ()> {
            async { Err(Error::storage("careless", "no files")) }.boxed()
        }

        fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Stored>> {
            later(move || {
                let objects = self.objects();
                let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
                let stored = found.map(|(key, (_, modified))| Stored {
                    key: key.clone(),
                    size: 1,
                    modified: *modified,
                });
                stored.collect()
            })
        }

        fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
            later(move || drop(self.objects().remove(key)))
        }

        fn link<'a>(&'a self, _: &'a str, _: Duration) -> Answer<'a, Option<Url>> {
            async { Ok(None) }.boxed()
        }
    }

    /// Each writer adds one to a number, however often others are quicker.
    async fn count(storage: Arc<dyn Storage>, how: Exclusion, id: String) {
        for _ in 0..5 {
            loop {
                let (bytes, tag) = storage.read("number", 100).await.unwrap().unwrap();
                let number: u32 = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
                let next = Bytes::from((number + 1).to_string());
                if replace(&*storage, ("number", next), Some(&tag), (how, &id)).await.unwrap() {
                    break;
                }
            }
        }
    }

    async fn nothing_is_lost(storage: Arc<dyn Storage>, expected: Exclusion) {
        let how = Exclusion::of(&*storage, "x").await.unwrap();
        assert_eq!(how, expected);
        let first = || ("number", Bytes::from_static(b"0"));
        assert!(replace(&*storage, first(), None, (how, "first")).await.unwrap());
        assert!(!replace(&*storage, first(), None, (how, "first")).await.unwrap());
        let writers: Vec<_> =
            (0..4).map(|n| tokio::spawn(count(Arc::clone(&storage), how, format!("writer{n}")))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let (bytes, _) = storage.read("number", 100).await.unwrap().unwrap();
        assert_eq!(&bytes[..], b"20", "{how:?}");
        assert!(storage.list(FLAGS).await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn writers_lose_nothing_with_conditions_or_with_flags() {
        let dir = tempfile::tempdir().unwrap();
        nothing_is_lost(Arc::new(Directory::new(dir.path())), Exclusion::Conditional).await;
        nothing_is_lost(Arc::new(Careless::default()), Exclusion::Flags).await;
    }

    #[tokio::test]
    async fn a_flag_of_who_died_keeps_others_out_for_a_while_only() {
        let storage = Careless::default();
        storage.write("flags/dead", Bytes::new(), Condition::Always).await.unwrap();
        storage.write("flags/own", Bytes::new(), Condition::Always).await.unwrap();
        assert!(!alone(&storage, "flags/own").await.unwrap());
        let died = SystemTime::now() - STALE - Duration::from_secs(1);
        storage.objects().insert("flags/dead".into(), (Bytes::new(), died));
        assert!(alone(&storage, "flags/own").await.unwrap());
    }
}
