//! Where things are kept.

use std::env;
use std::path::PathBuf;

/// Directories of this user.
pub struct Paths {
    /// What can be fetched again.
    pub cache: PathBuf,
}

impl Paths {
    /// `MILLSTREAM_DIR`, else the system's directories for root and the XDG ones for others.
    pub fn from_env() -> Self {
        if let Some(dir) = env::var_os("MILLSTREAM_DIR") {
            let dir = PathBuf::from(dir);
            return Self { cache: dir.join("cache") };
        }
        if rustix::process::geteuid().is_root() {
            return Self { cache: "/var/cache/millstream".into() };
        }
        let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
        let xdg = |variable: &str, default: &str| {
            let base = env::var_os(variable).map_or_else(|| home().join(default), PathBuf::from);
            base.join("millstream")
        };
        Self { cache: xdg("XDG_CACHE_HOME", ".cache") }
    }
}
