//! The packages of a mirror: listed by what it signed, or by its directories; fetched and checked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};

use super::super::layouts::Signed;
use super::super::remote::{Fetched, Remote};
use super::super::wildcard;
use super::layouts::Plan;
use super::package::Name;
use crate::{Error, Result};

/// Downloads at a time.
const PARALLEL: usize = 4;
/// Packages of one root file system.
const MAX_PACKAGES: usize = 2000;

/// A package on the mirror.
#[derive(Debug)]
struct Offer {
    name: Name,
    url: String,
    md5: Option<String>,
}

/// A package that was fetched.
pub(super) struct Package {
    pub(super) name: Name,
    pub(super) file: Fetched,
}

/// Every package of the plan, in the order of installing.
pub(super) async fn fetch(remote: &Remote<'_>, base: &str, plan: &Plan) -> Result<Vec<Package>> {
    let top = format!("{base}/{}", plan.top);
    let mut offers = match plan.sums {
        Some(name) if !remote.trust.is_skipped() => listed(remote, &top, name, plan).await?,
        _ => found(remote, &top, plan).await?,
    };
    offers.retain(|offer| (plan.wanted)(&offer.name.bare));
    if offers.is_empty() || offers.len() > MAX_PACKAGES {
        return Err(Error::Refused(format!(
            "{top}: there are {} packages for a root file system; check image.release and source.url",
            offers.len()
        )));
    }
    let fetched = offers.into_iter().map(async |offer| {
        let file = remote.checked(&offer.url, None, plan.signed).await?;
        if let Some(expected) = &offer.md5 {
            check(&offer.url, &file.path, expected)?;
        }
        Ok(Package { name: offer.name, file })
    });
    stream::iter(fetched).buffered(PARALLEL).try_collect().await
}

/// Those in the list of checksums: `MD5  ./PATH` each.
async fn listed(remote: &Remote<'_>, top: &str, name: &str, plan: &Plan) -> Result<Vec<Offer>> {
    let url = format!("{top}/{name}");
    let Some(text) = remote.sums(&url, Signed::Sums(".asc")).await? else {
        return Err(Error::Refused(format!(
            "{url}: there is no such list of checksums; check image.release, image.architecture and source.url"
        )));
    };
    let mut offers = Vec::new();
    for series in &plan.series {
        let mut own: Vec<_> = text.lines().filter_map(|line| offer(line, top, series, plan)).collect();
        own.sort_by(|a, b| a.name.file.cmp(&b.name.file));
        if let Some(pair) = own.windows(2).find(|pair| pair[0].name.file == pair[1].name.file) {
            return Err(Error::Untrusted {
                what: url,
                reason: format!("it has {} twice", pair[0].name.file),
            });
        }
        offers.extend(own);
    }
    Ok(offers)
}

fn offer(line: &str, top: &str, series: &str, plan: &Plan) -> Option<Offer> {
    let (md5, path) = line.split_once(char::is_whitespace)?;
    let file = path.trim().strip_prefix("./")?.strip_prefix(series)?.strip_prefix('/')?;
    let name = Name::parse(file, plan.endings)?;
    let good = md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| Offer { name, url: format!("{top}/{series}/{file}"), md5: Some(md5.to_ascii_lowercase()) })
}

/// Those that directories list. A directory may have others in it that are called like packages.
async fn found(remote: &Remote<'_>, top: &str, plan: &Plan) -> Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for series in &plan.series {
        let mut own = Vec::new();
        let mut directories = vec![(format!("{top}/{series}"), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let Some(listing) = remote.document(&format!("{directory}/")).await? else {
                if depth > 0 {
                    continue;
                }
                return Err(Error::Refused(format!(
                    "{directory}/: there is no such directory; check image.release, image.architecture and source.url"
                )));
            };
            for ending in plan.endings {
                for file in wildcard::newest(&listing, &format!("*{ending}"), false) {
                    let url = format!("{directory}/{file}");
                    if listing.contains(&format!("{file}/")) {
                        if depth == 0 {
                            directories.push((url, 1));
                        }
                    } else if let Some(name) = Name::parse(&file, plan.endings) {
                        own.push(Offer { name, url, md5: None });
                    }
                }
            }
        }
        own.sort_by(|a, b| (&a.name.file, &a.url).cmp(&(&b.name.file, &b.url)));
        own.dedup_by(|a, b| a.name.file == b.name.file);
        offers.extend(own);
    }
    Ok(offers)
}

fn check(what: &str, file: &Path, expected: &str) -> Result<()> {
    let mut state = Md5::new();
    let mut opened = File::open(file).map_err(Error::io(file))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match opened.read(&mut buffer).map_err(Error::io(file))? {
            0 => break,
            count => state.update(&buffer[..count]),
        }
    }
    let digits: Vec<_> = state.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let found = digits.concat();
    if found == expected {
        return Ok(());
    }
    Err(Error::Untrusted {
        what: what.to_owned(),
        reason: format!("its checksum is MD5 {found}, published is {expected}"),
    })
}
