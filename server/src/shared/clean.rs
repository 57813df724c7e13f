//! Objects that nothing names: of publishers that were cut off, and what a publication could not delete.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::root::{ROOT, map_path, parse_map};
use super::work::read_document;
use crate::storage::Storage;
use crate::{Error, Result};

/// Younger objects may be those of a publisher at work.
const AGE: Duration = Duration::from_hours(24);

/// Removes them.
pub(super) async fn clean(storage: &dyn Storage) -> Result<()> {
    // Listed first: what is published after that is in no list.
    let objects = storage.list("").await?;
    let Some((root, _)) = super::read_root(storage).await? else { return Ok(()) };
    let documents = root.files.values().map(|document| &document.key).chain(root.trash.keys());
    let mut named: BTreeSet<String> = documents.cloned().collect();
    for distribution in root.distributions() {
        let document = &root.files[&map_path(distribution)];
        let map = parse_map(distribution, &read_document(storage, document).await?);
        let map = map.map_err(|reason| Error::storage(&document.key, reason))?;
        for (image, place) in map {
            named.extend(place.files.keys().map(|name| format!("{image}/{}/{name}", place.id)));
        }
    }
    let ours =
        |key: &str| ["documents/", "images/", "flags/", "probe-"].iter().any(|dir| key.starts_with(dir));
    for object in objects.iter().filter(|object| object.key != ROOT && ours(&object.key)) {
        let old = SystemTime::now().duration_since(object.modified).is_ok_and(|age| age > AGE);
        if old && !named.contains(&object.key) {
            storage.delete(&object.key).await?;
        }
    }
    Ok(())
}
