//! Managers that keep plain lists: opkg, portage and Slackware's pkgtools.

use super::{Entry, text};
use crate::Result;
use crate::apt::deb822::paragraphs;
use crate::rootfs::Rootfs;

/// opkg: dpkg's format, in a place of its own.
pub(super) fn opkg(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for place in ["/usr/lib/opkg", "/var/lib/opkg"] {
        let status = text(rootfs, &format!("{place}/status"))?;
        for paragraph in paragraphs(&status) {
            let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
            if !field("Status").ends_with(" installed") {
                continue;
            }
            let mut entry = Entry {
                name: field("Package"),
                version: field("Version"),
                architecture: field("Architecture"),
                files: Vec::new(),
            };
            let list = text(rootfs, &format!("{place}/info/{}.list", entry.name.replace('/', "_")))?;
            list.lines().for_each(|line| entry.add(line.split('\t').next().unwrap_or_default()));
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Portage: `var/db/pkg/CATEGORY/NAME-VERSION/`, with the files in `CONTENTS`.
pub(super) fn portage(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    const DATABASE: &str = "/var/db/pkg";
    let mut entries = Vec::new();
    for category in rootfs.list(DATABASE)? {
        for directory in rootfs.list(&format!("{DATABASE}/{category}"))? {
            let place = format!("{DATABASE}/{category}/{directory}");
            let (name, version) = portage_version(&directory);
            let host = text(rootfs, &format!("{place}/CHOST"))?;
            let mut entry = Entry {
                name: format!("{category}/{name}"),
                version: version.to_owned(),
                architecture: host.trim().split('-').next().unwrap_or_default().to_owned(),
                files: Vec::new(),
            };
            for line in text(rootfs, &format!("{place}/CONTENTS"))?.lines() {
                // The name may hold spaces; hash and time follow it, or `->` and a target.
                let path = match line.split_once(' ') {
                    Some(("obj", rest)) => rest.rsplitn(3, ' ').nth(2),
                    Some(("sym", rest)) => rest.split(" -> ").next(),
                    _ => None,
                };
                if let Some(path) = path {
                    entry.add(path);
                }
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The version starts at the last hyphen before a digit, but for a revision `-r1`.
fn portage_version(text: &str) -> (&str, &str) {
    let revision = text.rfind("-r").filter(|at| {
        let digits = &text[at + 2..];
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let end = revision.unwrap_or(text.len());
    match text[..end].rfind('-') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

/// Slackware and its kin: a file for each package, named NAME-VERSION-ARCHITECTURE-BUILD, or NAME
/// with the rest in its first line.
pub(super) fn slackware(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    // The second is a link to the first where there is a first.
    for place in ["/var/lib/pkgtools/packages", "/var/log/packages"] {
        if !entries.is_empty() {
            break;
        }
        for file in rootfs.list(place)? {
            let text = text(rootfs, &format!("{place}/{file}"))?;
            let title = text.lines().next().and_then(|line| line.strip_prefix("PACKAGE NAME:"));
            let mut parts: Vec<_> = title.map_or(file.as_str(), str::trim).rsplitn(4, '-').collect();
            parts.reverse();
            let [name, version, architecture, build] = parts[..] else { continue };
            let mut entry = Entry {
                name: name.to_owned(),
                version: format!("{version}-{build}"),
                architecture: architecture.to_owned(),
                files: Vec::new(),
            };
            let list = text.lines().skip_while(|line| !line.starts_with("FILE LIST:")).skip(1);
            list.filter(|line| *line != "./").for_each(|line| entry.add(line));
            entries.push(entry);
        }
    }
    Ok(entries)
}
