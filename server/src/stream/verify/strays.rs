//! Files that no document knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::manifest::Manifest;

use super::Check;
use crate::stream::TEMPORARY;
use crate::stream::catalogue::Image;
use crate::stream::layout::{
    DOCUMENTS, IMAGES, KEY, LINKS, LOCK, LOG, LOGS, MANIFEST, MIRROR, PUSH, RETIRED, SIGNED, STAGING, SUMS,
    UNSIGNED,
};
use crate::stream::pages::{HISTORY, PAGE};
use crate::stream::retention::retired_paths;

impl Check<'_> {
    /// Files and directories that no document knows.
    pub(super) fn strays(&self, images: &[Image<'_>]) {
        let top = [DOCUMENTS, STAGING, UNSIGNED, LOCK, KEY, IMAGES, LOGS, RETIRED, MIRROR, PUSH];
        let links = LINKS.map(|(name, _)| name);
        for name in self.names(Path::new("")) {
            if !top.contains(&name.as_str())
                && !links.contains(&name.as_str())
                && !name.starts_with(TEMPORARY)
            {
                self.problem(name, "nothing knows this file");
            }
        }
        // Each image's directory, and the files in it that documents list.
        let listed: BTreeMap<_, _> = images
            .iter()
            .map(|(product, serial, _, version)| {
                let paths = version.items.values().map(|item| PathBuf::from(&item.path));
                (product.image_path(*serial), paths.collect::<BTreeSet<_>>())
            })
            .collect();
        self.stray_images(Path::new(IMAGES), &listed, &retired_paths(self.root));
    }

    fn stray_images(
        &self,
        dir: &Path,
        listed: &BTreeMap<PathBuf, BTreeSet<PathBuf>>,
        retired: &dyn Fn(&Path) -> bool,
    ) {
        for name in self.names(dir) {
            let path = dir.join(&name);
            if let Some(files) = listed.get(&path) {
                self.stray_files(&path, files);
            } else if retired(&path) {
                // On its way out.
            } else if self.root.join(&path).is_dir() && path.components().count() < 6 {
                self.stray_images(&path, listed, retired);
            } else {
                self.problem(path, "no document lists it");
            }
        }
    }

    fn stray_files(&self, image: &Path, listed: &BTreeSet<PathBuf>) {
        let manifest = fs::read(self.root.join(image).join(MANIFEST)).ok();
        let Some(manifest) = manifest.and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return; // Reported with the image.
        };
        for name in self.names(image) {
            let signed = name.strip_suffix(".asc").is_some_and(|name| SIGNED.contains(&name));
            let known = [MANIFEST, LOG, SUMS, PAGE, HISTORY].contains(&name.as_str())
                || manifest.files.contains_key(&name);
            let known = known || listed.contains(&image.join(&name));
            if !signed && !known {
                self.problem(image.join(name), "its manifest does not list it");
            }
        }
    }

    fn names(&self, dir: &Path) -> Vec<String> {
        let listing = self.or_problem(dir, fs::read_dir(self.root.join(dir)));
        let names = listing.into_iter().flatten().flatten();
        names.map(|item| item.file_name().to_string_lossy().into_owned()).collect()
    }
}
