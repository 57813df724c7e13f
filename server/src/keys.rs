//! The keys that sign streams: a directory with `NAME.key`, the secret, mode 0600, and `NAME.asc`,
//! the public key. Both are armored OpenPGP, so gpg reads them too. `NAME.next` holds the name of the
//! key that takes over, and `NAME.revoked` says that this one signs no more, see [`rotation`].

mod rotation;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::atomic;
use millstream_image::openpgp::{Algorithm, KeyFingerprint, SigningKey};
use serde::Serialize;

use crate::{Error, Result};

/// The key that is used when none is named.
pub const DEFAULT: &str = "default";

/// No key file is larger, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A directory of signing keys.
#[derive(Clone, Debug)]
pub struct KeyStore {
    dir: PathBuf,
}

/// What may be shown of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Name of its files.
    pub name: String,
    /// Full fingerprint.
    pub fingerprint: KeyFingerprint,
    /// First user id.
    pub user_id: String,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// The key that takes over from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether it signs no more.
    pub revoked: bool,
}

impl KeyStore {
    fn info(&self, name: &str, key: &SigningKey) -> KeyInfo {
        KeyInfo {
            name: name.to_owned(),
            fingerprint: key.fingerprint(),
            user_id: key.user_id(),
            created: key.created().into(),
            next: self.next(name),
            revoked: self.is_revoked(name),
        }
    }

    /// The keys in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file of a secret key.
    pub fn secret_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    /// The file of a public key.
    pub fn public_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.asc"))
    }

    /// Makes a key. An existing key of that name is never replaced.
    ///
    /// # Errors
    /// [`Error::Key`] for a bad name or one that is taken.
    pub fn generate(
        &self,
        name: &str,
        user_id: &str,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<KeyInfo> {
        self.check_free(name)?;
        let path = self.secret_path(name);
        let key = SigningKey::generate(user_id, algorithm, now, None).map_err(Error::image(&path))?;
        self.keep(name, &key)
    }

    /// Takes in a secret key that was made elsewhere, armored or binary, without passphrase. An existing
    /// key of that name is never replaced.
    ///
    /// # Errors
    /// [`Error::Key`] as [`KeyStore::generate`], and when `bytes` are no secret key that can sign at `now`.
    pub fn import(&self, name: &str, bytes: &[u8], now: SystemTime) -> Result<KeyInfo> {
        self.check_free(name)?;
        let refused = |error: millstream_image::Error| Error::key(name, error.to_string());
        let key = SigningKey::from_bytes(bytes).map_err(refused)?;
        key.sign_detached(&b""[..], now).map_err(refused)?;
        self.keep(name, &key)
    }

    fn check_free(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.secret_path(name);
        if path.exists() { Err(taken(name, &path)) } else { Ok(()) }
    }

    fn keep(&self, name: &str, key: &SigningKey) -> Result<KeyInfo> {
        let path = self.secret_path(name);
        let secret = key.to_armored_secret().map_err(Error::image(&path))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(Error::io(&self.dir))?;
        write_secret(&path, secret.as_bytes()).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(name, &path),
            _ => Error::io(&path)(error),
        })?;
        self.write_public(name, key)?;
        Ok(self.info(name, key))
    }

    /// The signing key of that name.
    ///
    /// # Errors
    /// [`Error::Key`] when there is none, or when others can read it.
    pub fn load(&self, name: &str) -> Result<SigningKey> {
        check_name(name)?;
        let path = self.secret_path(name);
        let file = File::open(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::key(
                name,
                format!(
                    "there is none in {}; make it with: millstream key generate {name}",
                    self.dir.display()
                ),
            ),
            _ => Error::io(&path)(error),
        })?;
        let mode = file.metadata().map_err(Error::io(&path))?.mode();
        if mode & 0o077 != 0 {
            let reason = format!("others can read {0}; run: chmod 600 {0}", path.display());
            return Err(Error::key(name, reason));
        }
        let mut bytes = Vec::new();
        file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(Error::io(&path))?;
        SigningKey::from_bytes(&bytes).map_err(Error::image(&path))
    }

    /// The signing key of that name, made when there is none; then also what to tell the user.
    pub fn load_or_generate(
        &self,
        name: &str,
        user_id: &str,
        now: SystemTime,
    ) -> Result<(SigningKey, Option<KeyInfo>)> {
        check_name(name)?;
        let made = if self.secret_path(name).exists() {
            None
        } else {
            match self.generate(name, user_id, Algorithm::default(), now) {
                Ok(info) => Some(info),
                // Somebody else was quicker; theirs is the key now.
                Err(Error::Key { .. }) if self.secret_path(name).exists() => None,
                Err(error) => return Err(error),
            }
        };
        Ok((self.load(name)?, made))
    }

    /// The signing key with that fingerprint, whatever its name.
    ///
    /// # Errors
    /// [`Error::Key`] when there is none.
    pub fn find(&self, fingerprint: &KeyFingerprint) -> Result<SigningKey> {
        self.find_named(fingerprint).map(|(_, key)| key)
    }

    fn find_named(&self, fingerprint: &KeyFingerprint) -> Result<(String, SigningKey)> {
        let names = self.names()?;
        let mut keys = names.into_iter().filter_map(|name| self.load(&name).ok().map(|key| (name, key)));
        keys.find(|(_, key)| key.fingerprint() == *fingerprint).ok_or_else(|| {
            let reason =
                format!("none in {} has this fingerprint; put its secret file there", self.dir.display());
            Error::key(fingerprint.as_str(), reason)
        })
    }

    /// All keys, by name.
    pub fn list(&self) -> Result<Vec<KeyInfo>> {
        self.names()?.iter().map(|name| Ok(self.info(name, &self.load(name)?))).collect()
    }

    fn names(&self) -> Result<Vec<String>> {
        let listing = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(Error::io(&self.dir))?,
        };
        let mut names = Vec::new();
        for item in listing {
            let name = item.map_err(Error::io(&self.dir))?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".key"))
                && check_name(name).is_ok()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The public key, armored, as clients and gpg import it.
    pub fn export(&self, name: &str) -> Result<String> {
        self.load(name)?.to_armored_public().map_err(Error::image(self.secret_path(name)))
    }

    fn write_public(&self, name: &str, key: &SigningKey) -> Result<()> {
        let path = self.public_path(name);
        let armored = key.to_armored_public().map_err(Error::image(&path))?;
        atomic::write(&path, armored.as_bytes()).map_err(Error::image(&path))
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(plain) {
        let reason = "a key's name is up to 64 letters, digits and . _ -, beginning with a letter or digit";
        return Err(Error::key(name, reason));
    }
    Ok(())
}

fn taken(name: &str, path: &Path) -> Error {
    Error::key(
        name,
        format!("{} exists already; a key is never replaced, choose another name", path.display()),
    )
}

/// As the image room's atomic write, but an existing file stays: losing a key cannot be undone.
fn write_secret(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    temp.write_all(secret)?;
    temp.as_file().sync_all()?;
    temp.persist_noclobber(path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, KeyStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path().join("keys"));
        (dir, store)
    }

    #[test]
    fn secret_is_0600_in_a_directory_of_its_owner_and_never_replaced() {
        let (_dir, store) = store();
        let made = store.generate("a", "A", Algorithm::Ed25519, SystemTime::now()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&store.secret_path("a")), 0o600);
        assert_eq!(mode(&store.dir), 0o700);
        let again = store.generate("a", "A", Algorithm::Ed25519, SystemTime::now()).unwrap_err();
        assert!(again.to_string().contains("never replaced"), "{again}");
        assert_eq!(store.list().unwrap(), [made]);
        assert!(store.export("a").unwrap().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    }

    #[test]
    fn key_readable_by_others_is_refused() {
        let (_dir, store) = store();
        store.generate("a", "A", Algorithm::Ed25519, SystemTime::now()).unwrap();
        fs::set_permissions(store.secret_path("a"), Permissions::from_mode(0o640)).unwrap();
        let error = store.load("a").unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn names_stay_in_the_directory() {
        let (_dir, store) = store();
        for bad in ["", "..", "../a", "a/b", ".a", "a b", "-a", "a\n"] {
            assert!(matches!(store.load(bad), Err(Error::Key { .. })), "{bad:?}");
        }
    }

    #[test]
    fn key_is_found_by_fingerprint_whatever_its_name_and_whatever_lies_beside_it() {
        let (_dir, store) = store();
        let made = store.generate("b", "B", Algorithm::Ed25519, SystemTime::now()).unwrap();
        fs::write(store.secret_path("a"), "no key").unwrap();
        assert_eq!(store.find(&made.fingerprint).unwrap().fingerprint(), made.fingerprint);
        let other = "0".repeat(40).parse().unwrap();
        assert!(store.find(&other).unwrap_err().to_string().contains("none in"));
    }

    #[test]
    fn first_use_makes_the_key_and_says_so() {
        let (_dir, store) = store();
        let (first, made) = store.load_or_generate(DEFAULT, "A", SystemTime::now()).unwrap();
        assert_eq!(made.unwrap().fingerprint, first.fingerprint());
        let (second, made) = store.load_or_generate(DEFAULT, "A", SystemTime::now()).unwrap();
        assert_eq!((second.fingerprint(), made), (first.fingerprint(), None));
    }
}
