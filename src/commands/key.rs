//! `millstream key`.

use std::time::SystemTime;

use anyhow::Context;
use millstream_image::atomic;
use millstream_image::openpgp::Algorithm;
use millstream_server::keys::{KeyInfo, KeyStore};

use crate::cli::server::Key;
use crate::output;
use crate::paths::Paths;

pub fn run(command: &Key, quiet: bool) -> anyhow::Result<()> {
    let store = KeyStore::new(Paths::from_env().keys());
    match command {
        Key::Generate { name, rsa, user_id } => {
            let algorithm = if *rsa { Algorithm::Rsa4096 } else { Algorithm::Ed25519 };
            let user_id = user_id.clone().unwrap_or_else(|| default_user_id(name));
            let key = store.generate(name, &user_id, algorithm, SystemTime::now())?;
            let path = store.secret_path(name);
            output::say(quiet, &format!("key {name}: keep a copy of {} in a safe place", path.display()));
            output::print(&format!("{}\n", key.fingerprint))
        }
        Key::Import { file, name } => {
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let key = store.import(name, &bytes, SystemTime::now())?;
            output::print(&format!("{}\n", key.fingerprint))
        }
        Key::Rotate { name, to } => {
            let user_id = default_user_id(to.as_deref().unwrap_or(name));
            let key = store.rotate(name, to.as_deref(), &user_id, SystemTime::now())?;
            let path = store.secret_path(&key.name);
            output::say(
                quiet,
                &format!(
                    "key {} takes over from {name}: keep a copy of {}, and type for each stream: millstream \
                     stream sign ROOT",
                    key.name,
                    path.display()
                ),
            );
            output::print(&format!("{}\n", key.fingerprint))
        }
        Key::Revoke { name } => {
            let key = store.revoke(name)?;
            let next = key.next.unwrap_or_default();
            let text = format!(
                "key {name} signs no more, {next} does; type for each stream: millstream stream sign ROOT"
            );
            output::say(quiet, &text);
            Ok(())
        }
        Key::List { output } => {
            let name = |key: &KeyInfo| key.name.clone();
            let fingerprint = |key: &KeyInfo| key.fingerprint.to_string();
            let user_id = |key: &KeyInfo| key.user_id.clone();
            let created = |key: &KeyInfo| key.created.format("%Y-%m-%d").to_string();
            let state = |key: &KeyInfo| match (&key.next, key.revoked) {
                (_, true) => "revoked".to_owned(),
                (Some(next), false) => format!("until {next} took over"),
                (None, false) => String::new(),
            };
            output::list(
                output.format,
                &store.list()?,
                &[
                    ("NAME", &name),
                    ("FINGERPRINT", &fingerprint),
                    ("USER ID", &user_id),
                    ("CREATED", &created),
                    ("STATE", &state),
                ],
            )
        }
        Key::Export { name, out } => {
            let armored = store.export(name)?;
            match out {
                Some(path) => atomic::write(path, armored.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display())),
                None => output::print(&armored),
            }
        }
    }
}

/// What gpg shows of a key nobody named otherwise.
pub fn default_user_id(name: &str) -> String {
    format!("Millstream image signing key ({name})")
}
