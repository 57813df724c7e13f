//! Mirrors that lie, and archives by URL or file.
