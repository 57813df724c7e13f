//! How long images stay: retirement by number and age, and clearing away what nothing lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use millstream_image::{Product, Serial};
use serde::Serialize;

use super::catalogue::Catalogue;
use super::lock::Lock;
use super::retire::{self, Retired};
use super::{Listed, Signing, Stream};
use crate::{Error, Result};

/// How long the files of an image stay after documents stopped listing it, unless something else is
/// asked: longer than a download takes and clients keep documents.
pub const GRACE: Duration = Duration::from_hours(24);

/// Which images of a product stay. The newest always does; any other stays that one of the rules
/// given keeps. Without rules all stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub newest: Option<usize>,
    /// Those made within so many days.
    pub days: Option<u32>,
}

impl Retention {
    /// The serials that are to go.
    pub fn retires(&self, serials: &[Serial], now: DateTime<Utc>) -> Vec<Serial> {
        if self.newest.is_none() && self.days.is_none() {
            return Vec::new();
        }
        let mut sorted = serials.to_vec();
        sorted.sort_by(|a, b| b.cmp(a));
        let young = |serial: &Serial| {
            self.days.is_some_and(|days| now - serial.time() < chrono::Duration::days(days.into()))
        };
        let goes = |(rank, serial): &(usize, Serial)| {
            *rank > 0 && self.newest.is_none_or(|newest| *rank >= newest) && !young(serial)
        };
        sorted.into_iter().enumerate().filter(goes).map(|(_, serial)| serial).collect()
    }
}

/// What retirement did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Images that documents list no more; their files go after the grace period.
    pub retired: Vec<Listed>,
    /// Image directories that no document listed; they go after the grace period too.
    pub orphans: Vec<PathBuf>,
    /// Image directories that are gone.
    pub removed: Vec<PathBuf>,
    /// Bytes of those.
    pub freed: u64,
}

impl Stream {
    /// What [`Stream::prune`] would do at `now`; changes nothing and needs no key.
    pub fn plan_prune(&self, retention: Retention, now: SystemTime) -> Result<Pruned> {
        let _lock = Lock::shared(self.root())?;
        let listed = self.list(now)?;
        let retired = retiring(&listed, retention, now.into());
        let known: BTreeSet<_> = listed.iter().map(|image| image.path.clone()).collect();
        let before = Retired::load(self.root())?;
        let orphans = self.orphans(&known, &before)?;
        let removed = before.due(now.into(), |path| Ok(known.contains(path)))?;
        let freed = removed.iter().map(|path| retire::bytes(&self.root().join(path))).sum();
        Ok(Pruned { retired, orphans, removed, freed })
    }

    /// Takes images out of the documents by `retention`, and removes the files of those that left
    /// them `grace` ago. Image directories that no document lists leave the same way.
    ///
    /// # Errors
    /// As [`Stream::add`]; what was done until then stays done.
    pub fn prune(&self, retention: Retention, grace: Duration, signing: &Signing<'_>) -> Result<Pruned> {
        let (_lock, mut catalogue) = self.write(signing)?;
        catalogue.read_all()?;
        let listed = super::listed(&catalogue);
        let known: BTreeSet<_> = listed.iter().map(|image| image.path.clone()).collect();
        let orphans = self.orphans(&known, &Retired::load(self.root())?)?;
        let retired = retiring(&listed, retention, signing.now.into());
        self.retire(catalogue, retired, orphans, grace, signing)
    }

    /// Takes these images out of the documents; their files go after `grace`, with the next command
    /// that publishes, or at once when it is zero.
    ///
    /// # Errors
    /// [`Error::Tree`] when one of them is not there; then nothing is removed.
    pub fn remove(
        &self,
        images: &[(Product, Serial)],
        grace: Duration,
        signing: &Signing<'_>,
    ) -> Result<Pruned> {
        let (_lock, mut catalogue) = self.write(signing)?;
        images.iter().try_for_each(|(product, _)| catalogue.document(product.distribution()).map(drop))?;
        let listed = super::listed(&catalogue);
        let mut retired = Vec::new();
        for (product, serial) in images {
            let found = listed.iter().find(|image| (&image.product, &image.serial) == (product, serial));
            let missing = || Error::tree(self.root(), format!("it has no image {product} {serial}"));
            retired.push(found.ok_or_else(missing)?.clone());
        }
        self.retire(catalogue, retired, Vec::new(), grace, signing)
    }

    fn retire(
        &self,
        mut catalogue: Catalogue,
        retired: Vec<Listed>,
        orphans: Vec<PathBuf>,
        grace: Duration,
        signing: &Signing<'_>,
    ) -> Result<Pruned> {
        let now = DateTime::<Utc>::from(signing.now);
        let due = chrono::Duration::from_std(grace).ok().and_then(|grace| now.checked_add_signed(grace));
        let due = due.ok_or_else(|| Error::tree(self.root(), "the grace period is too long"))?;
        let mut leaving = Retired::load(self.root())?;
        for path in retired.iter().map(|image| &image.path).chain(&orphans) {
            leaving.add(path.clone(), due);
        }
        if !(retired.is_empty() && orphans.is_empty()) {
            leaving.save(self.root())?;
        }
        if !retired.is_empty() {
            for image in &retired {
                catalogue.remove(&image.product, image.serial)?;
            }
            self.publish_next(&mut catalogue, signing)?;
        }
        let removed = self.collect_retired(&mut catalogue, now)?;
        let freed = removed.iter().map(|(_, bytes)| bytes).sum();
        Ok(Pruned { retired, orphans, removed: removed.into_iter().map(|(path, _)| path).collect(), freed })
    }

    /// Removes the files of retired images whose time has come.
    pub(super) fn collect_retired(
        &self,
        catalogue: &mut Catalogue,
        now: DateTime<Utc>,
    ) -> Result<Vec<(PathBuf, u64)>> {
        Retired::load(self.root())?.collect(self.root(), now, |path| catalogue.lists(path))
    }

    /// Image directories that nothing knows.
    fn orphans(&self, listed: &BTreeSet<PathBuf>, retired: &Retired) -> Result<Vec<PathBuf>> {
        let mut found = self.image_directories()?;
        found.retain(|path| !listed.contains(path) && !retired.contains(path));
        Ok(found)
    }
}

fn retiring(listed: &[Listed], retention: Retention, now: DateTime<Utc>) -> Vec<Listed> {
    let products = listed.chunk_by(|a, b| a.product == b.product);
    let goes = |images: &[Listed]| {
        let serials: Vec<_> = images.iter().map(|image| image.serial).collect();
        let retired = retention.retires(&serials, now);
        images.iter().filter(|image| retired.contains(&image.serial)).cloned().collect::<Vec<_>>()
    };
    products.flat_map(goes).collect()
}

/// Whether a path lies in one of the tree's retired images.
pub(super) fn retired_paths(root: &Path) -> impl Fn(&Path) -> bool {
    let retired = Retired::load(root).unwrap_or_default();
    move |path| retired.contains(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_add_up_and_the_newest_always_stays() {
        let serials: Vec<Serial> = (1..=5).map(|day| format!("2026010{day}_0000").parse().unwrap()).collect();
        let now = "2026-01-06T00:00:00Z".parse().unwrap();
        let days = |retention: Retention| {
            let mut days: Vec<_> = retention
                .retires(&serials, now)
                .iter()
                .map(|serial| serial.to_string()[7..8].to_owned())
                .collect();
            days.sort();
            days.concat()
        };
        assert_eq!(days(Retention::default()), "");
        assert_eq!(days(Retention { newest: Some(2), days: None }), "123");
        assert_eq!(days(Retention { newest: Some(0), days: None }), "1234");
        assert_eq!(days(Retention { newest: None, days: Some(3) }), "123");
        assert_eq!(days(Retention { newest: None, days: Some(0) }), "1234");
        assert_eq!(days(Retention { newest: Some(1), days: Some(4) }), "12");
        assert_eq!(days(Retention { newest: Some(9), days: Some(1) }), "");
    }
}
