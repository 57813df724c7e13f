//! apk: paragraphs of one-letter fields in `lib/apk/db/installed`.

use super::{Entry, text};
use crate::Result;
use crate::rootfs::Rootfs;

pub(super) fn read(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    // Since version 3 below /usr; a merged /usr shows it in both places.
    let mut database = text(rootfs, "/usr/lib/apk/db/installed")?;
    if database.is_empty() {
        database = text(rootfs, "/lib/apk/db/installed")?;
    }
    Ok(database.split("\n\n").filter_map(paragraph).collect())
}

fn paragraph(text: &str) -> Option<Entry> {
    let mut entry = Entry::default();
    let mut directory = "";
    for (field, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match field {
            "P" => value.clone_into(&mut entry.name),
            "V" => value.clone_into(&mut entry.version),
            "A" => value.clone_into(&mut entry.architecture),
            "F" => directory = value,
            "R" => entry.add(&format!("{directory}/{value}")),
            _ => {}
        }
    }
    (!entry.name.is_empty()).then_some(entry)
}
