//! One image of a stream, with all its files.

use std::collections::BTreeMap;
use std::time::SystemTime;

use millstream_image::manifest::{File, Manifest, Source};
use serde::Serialize;

use super::{Listed, Selector, Stream, place};
use crate::Result;

/// What `stream show` tells of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// As lists have it.
    #[serde(flatten)]
    pub listed: Listed,
    /// Distribution as shown to people.
    pub os: String,
    /// One line.
    pub description: String,
    /// What the image asks of its host.
    pub requirements: BTreeMap<String, String>,
    /// What it was made from.
    pub sources: Vec<Source>,
    /// Installed packages.
    pub packages: usize,
    /// Its files by name.
    pub files: BTreeMap<String, File>,
}

impl Stream {
    /// How an image of the stream came to be.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn manifest(&self, image: &Listed) -> Result<Manifest> {
        place::read_manifest(&self.root().join(&image.path))
    }

    /// Everything the stream knows of one image.
    ///
    /// # Errors
    /// As [`Stream::find`], and when its manifest cannot be read.
    pub fn show(&self, selector: &Selector, now: SystemTime) -> Result<Shown> {
        let listed = self.find(selector, now)?;
        let manifest = place::read_manifest(&self.root().join(&listed.path))?;
        Ok(Shown {
            listed,
            os: manifest.os,
            description: manifest.description,
            requirements: manifest.requirements,
            sources: manifest.sources,
            packages: manifest.packages.len(),
            files: manifest.files,
        })
    }
}
