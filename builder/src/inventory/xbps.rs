//! xbps: property lists in `var/db/xbps`, read as the flat run of keys and texts they are.

use super::{Entry, text};
use crate::Result;
use crate::rootfs::Rootfs;

const DATABASE: &str = "/var/db/xbps";

pub(super) fn read(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for file in rootfs.list(DATABASE)?.iter().filter(|name| name.starts_with("pkgdb-")) {
        let plist = text(rootfs, &format!("{DATABASE}/{file}"))?;
        let mut architecture = String::new();
        for (key, value) in pairs(&plist) {
            match key {
                // Keys are sorted, so that it stands before its package's name.
                "architecture" => architecture = value,
                "pkgver" => {
                    let (name, version) = value.rsplit_once('-').unwrap_or((&value, ""));
                    let mut entry = Entry {
                        name: name.to_owned(),
                        version: version.to_owned(),
                        architecture: std::mem::take(&mut architecture),
                        files: Vec::new(),
                    };
                    let files = text(rootfs, &format!("{DATABASE}/.{}-files.plist", name.replace('/', "_")))?;
                    pairs(&files).filter(|(key, _)| *key == "file").for_each(|(_, path)| entry.add(&path));
                    entries.push(entry);
                }
                _ => {}
            }
        }
    }
    Ok(entries)
}

/// Every `<string>` that follows a `<key>` at once.
fn pairs(plist: &str) -> impl Iterator<Item = (&str, String)> {
    plist.split("<key>").skip(1).filter_map(|part| {
        let (key, rest) = part.split_once("</key>")?;
        let value = rest.trim_start().strip_prefix("<string>")?.split_once("</string>")?.0;
        Some((key, value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))
    })
}
