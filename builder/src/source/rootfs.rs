//! `rootfs-http`: any archive, by URL or on this machine.
//!
//! `source.url` may end in `#sha256=HEX`, which is then what the archive must be. Otherwise the
//! checksum is taken from `NAME.sha256` or `SHA256SUMS` beside the archive when one is there. With
//! `source.keys`, either a signature of the archive (`NAME.asc`, `NAME.sig`, `NAME.gpg`) or one of
//! `SHA256SUMS` must be there and right.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::{Sha256Digest, manifest};

use super::trust::Trust;
use super::{Context, Origin, archive, oci, remote, sums};
use crate::script::Scripts;
use crate::{Error, Result, output};

const MAX_DOCUMENT: u64 = 4 << 20;
const SIGNATURES: [&str; 3] = [".asc", ".sig", ".gpg"];

pub(super) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let url = context.resolved.definition.source.url.as_str();
    if url.is_empty() {
        return Err(Error::Refused("source.url: rootfs-http needs the URL or the file of an archive".into()));
    }
    let (place, pinned) = split(url)?;
    let trust = Trust::of(context.resolved, context.host)?;
    let place = Place::of(place, context.recipe_dir)?;
    let found = context.fetcher.run(fetch(context, &place, pinned.as_ref(), &trust))?;
    scripts.note(&format!("source: {} SHA-256 {}", found.source.url, found.source.sha256))?;
    if trust.is_skipped() && pinned.is_none() {
        scripts.note("warning: source.skip_verification: neither checksum nor signature was checked")?;
    }
    let wanted = oci::Wanted {
        architecture: context.resolved.architecture,
        tag: None,
        cancel: context.fetcher.cancel,
    };
    archive::unpack(&found.path, context.root, "", &wanted)?;
    let date = archive::newest_time(context.root)?;
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    Ok(Origin { sources: vec![found.source], date, installed: None })
}

/// The URL, and the checksum that its fragment pins.
fn split(url: &str) -> Result<(&str, Option<sums::Checksum>)> {
    let Some((url, fragment)) = url.split_once('#') else { return Ok((url, None)) };
    let hex = fragment.strip_prefix("sha256=").or_else(|| fragment.strip_prefix("sha512="));
    let checksum = hex.and_then(sums::Checksum::parse);
    checksum.map(|checksum| (url, Some(checksum))).ok_or_else(|| {
        Error::Refused(format!(
            "source.url: #{fragment} is not understood; expected #sha256= and 64 hex digits, or #sha512= and 128"
        ))
    })
}

/// Where the archive is.
enum Place {
    Remote(String),
    Local(PathBuf),
}

impl Place {
    fn of(url: &str, recipe_dir: &Path) -> Result<Self> {
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Local(path.into())),
            Some(("http" | "https", _)) => Ok(Self::Remote(url.to_owned())),
            Some((scheme, _)) => Err(Error::Refused(format!(
                "source.url: {scheme}: is not fetched; use https, http, file:///PATH or a path"
            ))),
            None => Ok(Self::Local(recipe_dir.join(url))),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Remote(url) => {
                let path = url.split('?').next().unwrap_or(url);
                path.rsplit('/').next().unwrap_or(path).to_owned()
            }
            Self::Local(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The place of another file: beside the archive, or with its name and an ending.
    fn sibling(&self, name: &str) -> Self {
        match self {
            Self::Remote(url) => {
                let path = url.split('?').next().unwrap_or(url);
                Self::Remote(path.rsplit_once('/').map_or(name.to_owned(), |(d, _)| format!("{d}/{name}")))
            }
            Self::Local(path) => Self::Local(path.with_file_name(name)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Remote(url) => output::without_password(url),
            Self::Local(path) => path.display().to_string(),
        }
    }

    /// Its bytes; `None` when it is not there.
    async fn read(&self, context: &Context<'_>) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Remote(url) => match context.fetcher.http.document(url, MAX_DOCUMENT).await {
                Ok(data) => Ok(Some(data)),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Local(path) => match fs::read(path) {
                Ok(data) => Ok(Some(data)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::io(path)(error)),
            },
        }
    }
}

async fn fetch(
    context: &Context<'_>,
    place: &Place,
    pinned: Option<&sums::Checksum>,
    trust: &Trust,
) -> Result<remote::Fetched> {
    let name = place.name();
    if let Place::Remote(url) = place
        && pinned.is_none()
    {
        trust.check_way(url, true)?;
    }
    let mut signed_sums = false;
    let published = match pinned {
        Some(_) => None,
        None if trust.is_skipped() => None,
        None => {
            let found = published(context, place, &name, trust).await?;
            signed_sums = found.as_ref().is_some_and(|(_, signed)| *signed);
            found.map(|(checksum, _)| checksum)
        }
    };
    let expected = pinned.or(published.as_ref());
    let fetched = match place {
        Place::Remote(url) => remote::fetch(context, url, expected).await?,
        Place::Local(path) => local(path, &name, expected)?,
    };
    if trust.has_keys() && !signed_sums {
        archive_signature(context, place, &name, trust, &fetched.path).await?;
    }
    Ok(fetched)
}

/// A checksum found beside the archive, and whether its signature was good.
async fn published(
    context: &Context<'_>,
    place: &Place,
    name: &str,
    trust: &Trust,
) -> Result<Option<(sums::Checksum, bool)>> {
    for list_name in [format!("{name}.sha256"), "SHA256SUMS".to_owned()] {
        let list = place.sibling(&list_name);
        let Some(data) = list.read(context).await? else { continue };
        let text = String::from_utf8_lossy(&data);
        let Some(checksum) = sums::find(&text, name) else {
            let reason = format!("it has no checksum of {name}, or two");
            return Err(Error::Untrusted { what: list.shown(), reason });
        };
        let mut signed = false;
        if trust.has_keys() && list_name == "SHA256SUMS" {
            for ending in SIGNATURES {
                let signature = place.sibling(&format!("{list_name}{ending}"));
                if let Some(bytes) = signature.read(context).await? {
                    trust.detached_bytes(&signature.shown(), &data, &bytes)?;
                    signed = true;
                    break;
                }
            }
        }
        return Ok(Some((checksum, signed)));
    }
    Ok(None)
}

async fn archive_signature(
    context: &Context<'_>,
    place: &Place,
    name: &str,
    trust: &Trust,
    file: &Path,
) -> Result<()> {
    for ending in SIGNATURES {
        let signature = place.sibling(&format!("{name}{ending}"));
        if let Some(bytes) = signature.read(context).await? {
            return trust.detached(&signature.shown(), file, &bytes);
        }
    }
    Err(Error::Untrusted {
        what: place.shown(),
        reason: format!(
            "source.keys asks for a signature, and there is neither {name}{} nor SHA256SUMS with one",
            SIGNATURES.join(&format!(" nor {name}"))
        ),
    })
}

fn local(path: &Path, name: &str, expected: Option<&sums::Checksum>) -> Result<remote::Fetched> {
    let file = fs::File::open(path).map_err(Error::io(path))?;
    let (sha256, _) = Sha256Digest::of_reader(file).map_err(Error::io(path))?;
    let what = path.display().to_string();
    if let Some(expected) = expected {
        expected.check(&what, path, sha256)?;
    }
    // The place on this machine is nobody's business.
    let source = manifest::Source { url: "file:".into(), name: name.to_owned(), sha256 };
    Ok(remote::Fetched { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_paths_and_pins_are_told_apart() {
        let hex = "ab".repeat(32);
        let url = format!("https://m.example/a.txz#sha256={hex}");
        let (place, pin) = split(&url).unwrap();
        assert_eq!((place, pin), ("https://m.example/a.txz", sums::Checksum::parse(&hex)));
        assert!(split("https://m.example/a#part").is_err() && split("x#sha256=12").is_err());
        let here = Path::new("/recipes");
        assert!(
            matches!(Place::of("a.tar", here).unwrap(), Place::Local(p) if p == Path::new("/recipes/a.tar"))
        );
        assert!(
            matches!(Place::of("file:///a.tar", here).unwrap(), Place::Local(p) if p == Path::new("/a.tar"))
        );
        assert!(Place::of("ftp://m.example/a", here).is_err());
        let query = Place::of("https://m.example/d/a.txz?x=1/2", here).unwrap();
        assert_eq!(
            (query.name().as_str(), query.sibling("S").shown().as_str()),
            ("a.txz", "https://m.example/d/S")
        );
    }
}
