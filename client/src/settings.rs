//! Settings of a user as a whole: keys and meanings are LXD's where LXD has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use millstream_image::atomic;
use serde::{Deserialize, Serialize};

use crate::remotes::lock_dir_of;
use crate::{Error, Result, suggest};

const VERSION: u32 = 1;

/// `images.remote_cache_expiry`: days after which an unused image goes that only came because something was
/// started from it; 0: never.
pub const REMOTE_CACHE_EXPIRY: &str = "images.remote_cache_expiry";
/// `images.auto_update_interval`: hours between two looks for newer images; 0: never.
pub const AUTO_UPDATE_INTERVAL: &str = "images.auto_update_interval";
/// `images.auto_update_cached`: whether images that only came because something was started from them
/// follow newer ones.
pub const AUTO_UPDATE_CACHED: &str = "images.auto_update_cached";

/// `images.shared`: whether other users of this machine may read root's images.
pub const SHARED: &str = "images.shared";

/// The largest number of days or hours.
const MOST: u32 = 1_000_000;

/// A key there is.
struct Key {
    name: &'static str,
    default: &'static str,
    takes: &'static str,
    allows: fn(&str) -> bool,
}

const KEYS: [Key; 4] = [
    Key { name: REMOTE_CACHE_EXPIRY, default: "10", takes: "a number of days", allows: is_number },
    Key { name: AUTO_UPDATE_INTERVAL, default: "6", takes: "a number of hours", allows: is_number },
    Key { name: AUTO_UPDATE_CACHED, default: "true", takes: "true or false", allows: is_bool },
    Key { name: SHARED, default: "false", takes: "true or false", allows: is_bool },
];

/// What was set; all else is as it is by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    version: u32,
    config: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { version: VERSION, config: BTreeMap::new() }
    }
}

impl Settings {
    /// Reads them; no file: nothing was set.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let bad = |reason: String| Error::document(path.display().to_string(), reason);
        let settings: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if settings.version != VERSION {
            return Err(bad(format!("version {} is not known", settings.version)));
        }
        for (name, value) in &settings.config {
            check(name, value).map_err(|e| bad(e.to_string()))?;
        }
        Ok(settings)
    }

    /// Changes what the file says, durably; of two processes one waits for the other.
    pub fn update(path: &Path, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let _lock = lock_dir_of(path)?;
        let mut settings = Self::load(path)?;
        change(&mut settings)?;
        let text = serde_json::to_vec_pretty(&settings).map_err(|e| Error::document("settings", e))?;
        Ok(atomic::write(path, &text)?)
    }

    /// What a key is set to; `None` where it is as it is by default.
    pub fn get(&self, name: &str) -> Result<Option<&str>> {
        key(name)?;
        Ok(self.config.get(name).map(String::as_str))
    }

    /// Sets a key.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        check(name, value)?;
        self.config.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Makes a key what it is by default.
    pub fn unset(&mut self, name: &str) -> Result<()> {
        key(name)?;
        self.config.remove(name);
        Ok(())
    }

    /// All that was set.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.config
    }

    /// How long an image that only came because something was started from it stays unused; `None`: for ever.
    pub fn cache_expiry(&self) -> Option<TimeDelta> {
        Some(self.number(REMOTE_CACHE_EXPIRY)).filter(|days| *days > 0).map(TimeDelta::days)
    }

    /// How often newer images are looked for; `None`: never.
    pub fn auto_update_interval(&self) -> Option<TimeDelta> {
        Some(self.number(AUTO_UPDATE_INTERVAL)).filter(|hours| *hours > 0).map(TimeDelta::hours)
    }

    /// Whether images that only came because something was started from them follow newer ones.
    pub fn auto_update_cached(&self) -> bool {
        is_true(self.value(AUTO_UPDATE_CACHED))
    }

    /// Whether other users of this machine may read root's images.
    pub fn shared(&self) -> bool {
        is_true(self.value(SHARED))
    }

    fn value<'a>(&'a self, name: &'a str) -> &'a str {
        let default = KEYS.iter().find(|key| key.name == name).map_or("", |key| key.default);
        self.config.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str) -> i64 {
        self.value(name).parse().unwrap_or_default()
    }
}

fn key(name: &str) -> Result<&'static Key> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        let hint = suggest::hint(name, KEYS.iter().map(|key| key.name));
        Error::name(name, format!("there is no such setting{hint}"))
    })
}

fn check(name: &str, value: &str) -> Result<()> {
    let key = key(name)?;
    let wrong = || Error::name(value, format!("{name} takes {}", key.takes));
    if (key.allows)(value) { Ok(()) } else { Err(wrong()) }
}

fn is_number(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_digit()) && value.parse::<u32>().is_ok_and(|number| number <= MOST)
}

/// As LXD reads them.
fn is_bool(value: &str) -> bool {
    is_true(value) || ["false", "0", "no", "off"].contains(&value)
}

fn is_true(value: &str) -> bool {
    ["true", "1", "yes", "on"].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_kept_and_mean_what_lxd_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config/settings.json");
        let settings = || Settings::load(&path).unwrap();
        assert_eq!(settings().cache_expiry(), Some(TimeDelta::days(10)));
        assert_eq!(settings().auto_update_interval(), Some(TimeDelta::hours(6)));
        assert!(settings().auto_update_cached());
        let set = |name: &str, value: &str| Settings::update(&path, |settings| settings.set(name, value));
        for (name, value) in
            [(REMOTE_CACHE_EXPIRY, "0"), (AUTO_UPDATE_INTERVAL, "0"), (AUTO_UPDATE_CACHED, "off")]
        {
            set(name, value).unwrap();
            assert_eq!(settings().get(name).unwrap(), Some(value));
        }
        assert_eq!((settings().cache_expiry(), settings().auto_update_interval()), (None, None));
        assert!(!settings().auto_update_cached());
        for (name, value) in [
            (REMOTE_CACHE_EXPIRY, "-1"),
            (REMOTE_CACHE_EXPIRY, "+1"),
            (AUTO_UPDATE_INTERVAL, "1000001"),
            (AUTO_UPDATE_INTERVAL, ""),
            (AUTO_UPDATE_CACHED, "maybe"),
        ] {
            assert!(set(name, value).unwrap_err().to_string().contains(name), "{name}={value}");
        }
        let error = set("images.auto_update", "1").unwrap_err().to_string();
        assert!(error.contains("did you mean images.auto_update"), "{error}");
        Settings::update(&path, |settings| settings.unset(REMOTE_CACHE_EXPIRY)).unwrap();
        assert_eq!(settings().cache_expiry(), Some(TimeDelta::days(10)));
        for bad in ["", "{}", r#"{"version":2,"config":{}}"#, r#"{"version":1,"config":{"x":"y"}}"#] {
            fs::write(&path, bad).unwrap();
            let error = Settings::load(&path).unwrap_err().to_string();
            assert!(error.contains("settings.json"), "{error}");
        }
    }
}
