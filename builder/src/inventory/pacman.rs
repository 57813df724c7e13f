//! pacman: a directory for each package in `var/lib/pacman/local`, with `desc` and `files`.

use super::{Entry, text};
use crate::Result;
use crate::rootfs::Rootfs;

const LOCAL: &str = "/var/lib/pacman/local";

pub(super) fn read(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for directory in rootfs.list(LOCAL)? {
        let desc = text(rootfs, &format!("{LOCAL}/{directory}/desc"))?;
        let files = text(rootfs, &format!("{LOCAL}/{directory}/files"))?;
        let field = |name: &str| block(&desc, name).next().unwrap_or_default().to_owned();
        let mut entry = Entry {
            name: field("NAME"),
            version: field("VERSION"),
            architecture: field("ARCH"),
            files: Vec::new(),
        };
        block(&files, "FILES").for_each(|path| entry.add(path));
        if !entry.name.is_empty() {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The lines between `%NAME%` and the next empty line.
fn block<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let head = format!("%{name}%");
    text.lines().skip_while(move |line| *line != head).skip(1).take_while(|line| !line.is_empty())
}
