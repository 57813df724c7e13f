//! Namespaces, mounts, id maps and limits: containers out of the store.
