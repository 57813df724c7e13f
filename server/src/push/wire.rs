//! What builder and server say to each other, as JSON.
//!
//! | request | answer |
//! |---|---|
//! | `POST /push/v1` with an [`Announcement`] | a [`State`] |
//! | `PATCH /push/v1/ID/NAME?offset=N` with bytes of a file, at most [`PIECE`] | [`Taken`] |
//! | `POST /push/v1/ID/finish` | a [`State`] other than `open` |
//!
//! Whatever is refused answers with a [`Problem`].

use std::collections::BTreeMap;

use millstream_image::{Fingerprint, Product, Serial, Sha256Digest};
use serde::{Deserialize, Serialize};

use crate::stream::{BESIDE, is_artefact};

/// Where pushes go, from the root of the server.
pub(crate) const PATH: &str = "/push/v1";
/// Most bytes of a file in one request.
pub(crate) const PIECE: u64 = 16 << 20;
/// Most bytes of an announcement.
pub(crate) const ANNOUNCEMENT: usize = 64 << 10;
/// Most files of an image.
const MOST_FILES: usize = 32;
/// Most bytes of a manifest, of checksums or a log.
const MOST_BESIDE: u64 = 64 << 20;

/// An image that is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Announcement {
    pub(crate) product: Product,
    pub(crate) serial: Serial,
    /// All files, also those its manifest does not list.
    pub(crate) files: BTreeMap<String, Part>,
}

/// A file of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) size: u64,
    pub(crate) sha256: Sha256Digest,
}

/// How far an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(crate) enum State {
    /// Files are awaited.
    Open {
        /// Names the upload in further requests.
        id: Sha256Digest,
        /// How much of each file is there.
        offsets: BTreeMap<String, u64>,
    },
    /// It is being checked and signed; ask again.
    Publishing,
    /// Documents list it.
    Published(Outcome),
    /// It waits for whoever has the key.
    Waiting(Outcome),
}

/// What the server has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) product: Product,
    pub(crate) serial: Serial,
    /// By which LXD, Incus and Millstream know it; unknown while it waits.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// False when the very image was there already.
    pub(crate) new: bool,
}

/// A piece was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// How much of the file is there now.
    pub(crate) offset: u64,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) error: String,
    /// How much of the file is there, where a piece did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
}

impl Announcement {
    /// Reads what came from outside.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let announcement: Self = serde_json::from_slice(bytes).map_err(|e| format!("announcement: {e}"))?;
        announcement.check()?;
        Ok(announcement)
    }

    fn check(&self) -> Result<(), String> {
        if self.files.len() > MOST_FILES {
            return Err(format!("more than {MOST_FILES} files are no image"));
        }
        if let Some(name) = self.files.keys().find(|name| !is_artefact(name)) {
            return Err(format!("{name:?} is no file of an image"));
        }
        let beside = BESIDE.iter().filter_map(|name| Some((name, self.files.get(*name)?)));
        if let Some((name, _)) = beside.clone().find(|(_, part)| part.size > MOST_BESIDE) {
            return Err(format!("{name} is larger than {MOST_BESIDE} bytes"));
        }
        if self.files.contains_key(BESIDE[0]) { Ok(()) } else { Err(format!("{} is missing", BESIDE[0])) }
    }

    /// Bytes of all files; `None` when they are beyond counting.
    pub(crate) fn size(&self) -> Option<u64> {
        self.files.values().try_fold(0_u64, |sum, part| sum.checked_add(part.size))
    }

    /// The upload's name: the same image by the same pusher is the same upload.
    pub(crate) fn id(&self, pusher: &Sha256Digest) -> Sha256Digest {
        // Neither names nor numbers can fail to be JSON.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.extend_from_slice(pusher.as_bytes());
        Sha256Digest::of(&text)
    }
}

/// Reads an announcement and drops it: for the fuzzer.
#[doc(hidden)]
pub fn try_announcement(bytes: &[u8]) {
    if let Ok(announcement) = Announcement::parse(bytes) {
        let again = serde_json::to_vec(&announcement).map(|text| Announcement::parse(&text));
        assert!(matches!(again, Ok(Ok(same)) if same == announcement), "what was read is written the same");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(files: &str) -> String {
        format!(
            r#"{{"product":"debian:bookworm:amd64:default","serial":"20260101_0000","files":{{{files}}}}}"#
        )
    }

    fn file(name: &str, size: &str) -> String {
        format!(r#"{:?}:{{"size":{size},"sha256":"{}"}}"#, name, "0".repeat(64))
    }

    #[test]
    fn announcements_name_images_and_nothing_else() {
        let good = text(&file("manifest.json", "5"));
        let read = Announcement::parse(good.as_bytes()).unwrap();
        let (one, two) = (Sha256Digest::of(b"one"), Sha256Digest::of(b"two"));
        assert_eq!((read.size(), read.id(&one)), (Some(5), read.id(&one)));
        assert_ne!(read.id(&one), read.id(&two));
        let many: Vec<_> = (0..40).map(|n| file(&format!("rootfs.tar.{n}"), "1")).collect();
        for (bad, reason) in [
            (text(""), "manifest.json is missing"),
            (text(&file("rootfs.tar.xz", "1")), "missing"),
            (text(&file("../manifest.json", "1")), "no file of an image"),
            (text(&file("index.html", "1")), "no file of an image"),
            (text(&file("manifest.json", "99999999999")), "larger than"),
            (text(&file("manifest.json", "-1")), "announcement:"),
            (text(&many.join(",")), "more than 32"),
            (good.replace("debian", "../x"), "announcement:"),
            (good.replace("2026", "x026"), "announcement:"),
            (good.replace("\"serial\"", "\"extra\":1,\"serial\""), "extra"),
            ("[".repeat(100_000), "announcement:"),
        ] {
            let error = Announcement::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let huge =
            text(&[file("rootfs.tar.xz", &u64::MAX.to_string()), file("manifest.json", "1")].join(","));
        assert_eq!(Announcement::parse(huge.as_bytes()).unwrap().size(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            try_announcement(&bytes);
            let mut spoiled = text(&file("manifest.json", "5")).into_bytes();
            for (at, byte) in bytes.iter().enumerate().take(3) {
                let place = (usize::from(*byte) * 7 + at * 31) % spoiled.len();
                spoiled[place] = byte.rotate_left(3);
            }
            try_announcement(&spoiled);
        }
    }
}
