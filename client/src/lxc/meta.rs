//! The members of `meta.tar.xz`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use millstream_image::archive::{Member, read_small};
use millstream_image::lxc_index::COMPAT_LEVEL;

use super::Mode;
use crate::{Error, Result};

/// LXC's metadata of an image.
pub(super) struct Meta {
    /// How messages name it.
    source: String,
    members: BTreeMap<PathBuf, Member>,
}

impl Meta {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let source = path.display().to_string();
        let file = File::open(path).map_err(Error::io(path))?;
        let members = read_small(file).map_err(|e| Error::document(&source, e))?;
        Ok(Self { source, members })
    }

    #[cfg(test)]
    pub(super) fn of(members: &[(&str, &str)]) -> Self {
        let member = |(name, text): &(&str, &str)| (PathBuf::from(name), Member::file(*text));
        Self { source: "meta.tar.xz".into(), members: members.iter().map(member).collect() }
    }

    /// The text of `name`, in the form closest to `mode` and this compatibility level.
    pub(super) fn text(&self, name: &str, mode: Mode) -> Result<Option<&str>> {
        let mut name = name.to_owned();
        for suffix in [format!("-{}", mode.name()), format!(".{COMPAT_LEVEL}")] {
            let closer = name.clone() + &suffix;
            if self.members.contains_key(Path::new(&closer)) {
                name = closer;
            }
        }
        let Some(member) = self.members.get(Path::new(&name)) else { return Ok(None) };
        let text = std::str::from_utf8(&member.data);
        text.map(Some).map_err(|_| self.bad(format!("{name} is not text in UTF-8")))
    }

    /// The lines of `name` that are not empty; none where it is missing.
    pub(super) fn lines(&self, name: &str, mode: Mode) -> Result<Vec<&str>> {
        let text = self.text(name, mode)?.unwrap_or_default();
        Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).collect())
    }

    /// The second since 1970 at which the image expires, if it says so.
    pub(super) fn expiry(&self, mode: Mode) -> Result<Option<i64>> {
        Ok(self.text("expiry", mode)?.and_then(|text| text.trim().parse().ok()))
    }

    pub(super) fn bad(&self, reason: impl std::fmt::Display) -> Error {
        Error::document(&self.source, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_form_is_taken() {
        let meta = Meta::of(&[
            ("config", "all"),
            ("config-user", "user"),
            ("config-user.7", "user 7"),
            ("expiry", "12\n"),
        ]);
        assert_eq!(meta.text("config", Mode::System).unwrap(), Some("all"));
        assert_eq!(meta.text("config", Mode::User).unwrap(), Some("user 7"));
        assert_eq!(meta.text("fstab", Mode::User).unwrap(), None);
        assert_eq!(meta.expiry(Mode::User).unwrap(), Some(12));
        let levels = Meta::of(&[("config", "new"), ("config.1", "old"), ("config-user.1", "old")]);
        assert_eq!(levels.text("config", Mode::User).unwrap(), Some("new"));
    }
}
