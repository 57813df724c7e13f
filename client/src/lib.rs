//! Remotes, verification, downloads and the local store.
