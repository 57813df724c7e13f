//! Where things are kept.

use std::env;
use std::path::PathBuf;

use millstream_runtime::sandbox::userns;

/// Directories of this user.
pub struct Paths {
    /// Settings: remotes, keys, certificates.
    pub config: PathBuf,
    /// What must not be lost: images, containers.
    pub data: PathBuf,
    /// What can be fetched again.
    pub cache: PathBuf,
}

impl Paths {
    /// `MILLSTREAM_DIR`, else the system's directories for root and the XDG ones for others.
    pub fn from_env() -> Self {
        if let Some(dir) = env::var_os("MILLSTREAM_DIR") {
            let dir = PathBuf::from(dir);
            return Self { config: dir.join("config"), data: dir.join("data"), cache: dir.join("cache") };
        }
        // Root of a build's own user namespace is still that user.
        if rustix::process::geteuid().is_root() && !userns::inside() {
            return Self {
                config: "/etc/millstream".into(),
                data: "/var/lib/millstream".into(),
                cache: "/var/cache/millstream".into(),
            };
        }
        let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
        let xdg = |variable: &str, default: &str| {
            let base = env::var_os(variable).map_or_else(|| home().join(default), PathBuf::from);
            base.join("millstream")
        };
        Self {
            config: xdg("XDG_CONFIG_HOME", ".config"),
            data: xdg("XDG_DATA_HOME", ".local/share"),
            cache: xdg("XDG_CACHE_HOME", ".cache"),
        }
    }

    /// Signing keys, `NAME.key` (secret, 0600) and `NAME.asc`.
    pub fn keys(&self) -> PathBuf {
        self.config.join("keys")
    }

    /// The local certificate authority and the server's certificate.
    pub fn tls(&self) -> PathBuf {
        self.config.join("tls")
    }

    /// The image store.
    pub fn store(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Containers and the unpacked images they share.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// The stream `millstream up` publishes into.
    pub fn stream(&self) -> PathBuf {
        self.data.join("stream")
    }
}
