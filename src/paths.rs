//! Where things are kept.

use std::env;
use std::path::PathBuf;

use millstream_runtime::sandbox::userns;

const SYSTEM_STORE: &str = "/var/lib/millstream/images";

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
        if is_system() {
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

    /// Root's image store, for others: where it is shared they read it. `MILLSTREAM_SHARED` says another
    /// place; who has directories of their own by `MILLSTREAM_DIR` reads none else.
    pub fn shared_store() -> Option<PathBuf> {
        if is_system() {
            return None;
        }
        let usual = || env::var_os("MILLSTREAM_DIR").is_none().then(|| SYSTEM_STORE.into());
        env::var_os("MILLSTREAM_SHARED").map(PathBuf::from).or_else(usual)
    }

    /// Containers and the unpacked images they share.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// History and locks of daily builds.
    pub fn daily(&self) -> PathBuf {
        self.data.join("daily")
    }

    /// What is done at set times, and was.
    pub fn schedule(&self) -> PathBuf {
        self.data.join("schedule")
    }

    /// The stream `millstream up` publishes into.
    pub fn stream(&self) -> PathBuf {
        self.data.join("stream")
    }
}

/// Whether this is root, and so uses the system's directories. Root of a build's own user namespace
/// is still the user who started it; and whoever has another id in a namespace that root made, for
/// a container of LXC's, is still root.
fn is_system() -> bool {
    let id = rustix::process::geteuid();
    if id.is_root() {
        return !userns::inside();
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [inside, 0, count] if count > 0 && inside == id.as_raw())
    })
}
