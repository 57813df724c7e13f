//! Names given to images here.

use std::collections::BTreeMap;

use millstream_image::{Alias, Fingerprint};

use super::{Store, StoredImage, absent};
use crate::query::ImageRef;
use crate::{Error, Result, suggest};

impl Store {
    /// The image of this alias, fingerprint, or unique beginning of a fingerprint, if it is here.
    pub fn find(&self, name: &ImageRef) -> Result<Option<StoredImage>> {
        let named = self.index().alias(name.alias())?;
        if let Some(fingerprint) = named {
            return self.get(fingerprint);
        }
        let Some(prefix) = name.fingerprint_prefix() else { return Ok(None) };
        let found = self.index().with_prefix(prefix)?;
        match found[..] {
            [] => Ok(None),
            [fingerprint] => self.get(fingerprint),
            _ => {
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                Err(Error::image(name, format!("it can mean {}", found.join(" or "))))
            }
        }
    }

    /// As [`Store::find`], where absence is an error that names what is near.
    pub fn resolve(&self, name: &ImageRef) -> Result<StoredImage> {
        if let Some(image) = self.find(name)? {
            return Ok(image);
        }
        let images = self.list()?;
        let mut names: Vec<_> = images.iter().flat_map(|image| &image.aliases).map(Alias::as_str).collect();
        let fingerprints: Vec<_> = images.iter().map(|image| image.fingerprint.short()).collect();
        names.extend(fingerprints.iter().map(String::as_str));
        let hint = suggest::hint(name.as_str(), names);
        Err(Error::image(name, format!("the local store has none of that name{hint}")))
    }

    /// Gives an image a name; a name that means another image is an error unless `replace`.
    pub fn add_alias(&self, alias: &Alias, fingerprint: Fingerprint, replace: bool) -> Result<()> {
        if self.get(fingerprint)?.is_none() {
            return Err(absent(fingerprint));
        }
        let other = self.index().add_alias(alias, fingerprint, replace)?;
        match other {
            Some(other) if other != fingerprint && !replace => {
                let reason = format!("the alias means {} already; delete it first", other.short());
                Err(Error::name(alias.as_str(), reason))
            }
            _ => self.tell_names(),
        }
    }

    /// Takes a name away.
    pub fn remove_alias(&self, alias: &Alias) -> Result<()> {
        if self.index().remove_alias(alias)? {
            return self.tell_names();
        }
        let known = self.aliases()?;
        let hint = suggest::hint(alias.as_str(), known.keys().map(Alias::as_str));
        Err(Error::name(alias.as_str(), format!("there is no such alias{hint}")))
    }

    /// Gives an alias another name, which must be free.
    pub fn rename_alias(&self, from: &Alias, to: &Alias) -> Result<()> {
        let known = self.aliases()?;
        if let Some(other) = known.get(to).filter(|_| from != to) {
            let reason = format!("the alias means {} already; delete it first", other.short());
            return Err(Error::name(to.as_str(), reason));
        }
        if self.index().rename_alias(from, to)? {
            return self.tell_names();
        }
        let hint = suggest::hint(from.as_str(), known.keys().map(Alias::as_str));
        Err(Error::name(from.as_str(), format!("there is no such alias{hint}")))
    }

    /// All names and what they mean.
    pub fn aliases(&self) -> Result<BTreeMap<Alias, Fingerprint>> {
        self.index().aliases()
    }
}
