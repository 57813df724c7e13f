//! Signatures: what must be refused, what must be accepted, and what gpg says of ours.

use std::process::Command;
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::{Algorithm, Keyring, SigningKey};

const DAY: Duration = Duration::from_hours(24);

fn now() -> SystemTime {
    SystemTime::now()
}

fn key() -> SigningKey {
    SigningKey::generate("Test <t@example.org>", Algorithm::Ed25519, now() - DAY, None).unwrap()
}

#[test]
fn detached_signature_verifies_and_names_its_signer() {
    let key = key();
    let signature = key.sign_detached(&b"data"[..], now()).unwrap();
    let verified = key.keyring().verify_detached(&b"data"[..], signature.as_bytes(), now()).unwrap();
    assert_eq!(verified.signers, [key.fingerprint()]);
}

#[test]
fn flipped_byte_is_refused() {
    let key = key();
    let signature = key.sign_detached(&b"data"[..], now()).unwrap();
    assert!(key.keyring().verify_detached(&b"dbta"[..], signature.as_bytes(), now()).is_err());
    let text = key.sign_cleartext("{\"a\":1}\n", now()).unwrap();
    assert!(key.keyring().verify_cleartext(text.replace(":1", ":2").as_bytes(), now()).is_err());
}

#[test]
fn missing_signature_is_refused() {
    let key = key();
    assert!(key.keyring().verify_detached(&b"data"[..], b"", now()).is_err());
    assert!(key.keyring().verify_cleartext(b"{\"a\":1}\n", now()).is_err());
}

#[test]
fn unknown_key_is_refused() {
    let signature = key().sign_detached(&b"data"[..], now()).unwrap();
    let error = key().keyring().verify_detached(&b"data"[..], signature.as_bytes(), now()).unwrap_err();
    assert!(error.to_string().contains("no good signature"), "{error}");
}

#[test]
fn unknown_signer_beside_a_good_one_is_accepted() {
    let (good, other) = (key(), key());
    let both =
        good.sign_detached(&b"data"[..], now()).unwrap() + &other.sign_detached(&b"data"[..], now()).unwrap();
    let joined = dearmor_join(&both);
    let verified = good.keyring().verify_detached(&b"data"[..], &joined, now()).unwrap();
    assert_eq!(verified.signers, [good.fingerprint()]);
}

/// Two armored signatures as one binary file of two packets.
fn dearmor_join(armored: &str) -> Vec<u8> {
    armored
        .split_inclusive("-----END PGP SIGNATURE-----\n")
        .flat_map(|block| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("s.asc");
            std::fs::write(&file, block).unwrap();
            let out = Command::new("gpg").arg("--dearmor").arg("-o").arg("-").arg(&file).output();
            out.expect("gpg is needed").stdout
        })
        .collect()
}

#[test]
fn expired_certificate_is_refused() {
    let made = now() - 10 * DAY;
    let key = SigningKey::generate("t", Algorithm::Ed25519, made, Some(2 * DAY)).unwrap();
    let signature = key.sign_detached(&b"data"[..], made + DAY).unwrap();
    assert!(key.keyring().verify_detached(&b"data"[..], signature.as_bytes(), made + DAY).is_ok());
    assert!(key.sign_detached(&b"data"[..], now()).is_err(), "an expired key does not sign");
    assert!(key.keyring().verify_detached(&b"data"[..], signature.as_bytes(), now()).is_err());
}

#[test]
fn signature_from_the_future_is_refused() {
    let key = key();
    let signature = key.sign_detached(&b"data"[..], now() + DAY).unwrap();
    assert!(key.keyring().verify_detached(&b"data"[..], signature.as_bytes(), now()).is_err());
    let soon = key.sign_detached(&b"data"[..], now() + Duration::from_mins(1)).unwrap();
    assert!(key.keyring().verify_detached(&b"data"[..], soon.as_bytes(), now()).is_ok(), "skew");
}

#[test]
fn text_around_the_signed_text_is_refused() {
    let key = key();
    let message = key.sign_cleartext("{\"a\":1}\n", now()).unwrap();
    let keyring = key.keyring();
    let (text, _) = keyring.verify_cleartext(message.as_bytes(), now()).unwrap();
    assert_eq!(text, b"{\"a\":1}\n", "the text comes back byte for byte");
    for bad in [
        format!("{{\"evil\":1}}\n{message}"),
        format!("{message}{{\"evil\":1}}\n"),
        format!("{message}{message}"),
        message.replacen("SIGNED MESSAGE-----\n", "SIGNED MESSAGE-----\nEvil: yes\n", 1),
        message.replacen("-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP SIGNED MESSAGE-----", 1),
        message[..message.len() / 2].to_owned(),
    ] {
        assert!(keyring.verify_cleartext(bad.as_bytes(), now()).is_err(), "{bad}");
    }
}

#[test]
fn secrets_do_not_show() {
    let key = key();
    assert!(!format!("{key:?}").contains("PRIVATE"));
    assert!(!key.to_armored_public().unwrap().contains("PRIVATE"));
    let again = SigningKey::from_bytes(key.to_armored_secret().unwrap().as_bytes()).unwrap();
    assert_eq!(again.fingerprint(), key.fingerprint());
    assert!(SigningKey::from_bytes(key.to_armored_public().unwrap().as_bytes()).is_err());
    let keyring = Keyring::from_bytes(key.keyring().to_armored().unwrap().as_bytes()).unwrap();
    assert_eq!(keyring.fingerprints(), [key.fingerprint()]);
}

#[test]
fn gpg_verifies_ours_and_we_verify_gpgs() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str| home.path().join(name);
    let gpg = |args: &[&str]| {
        let mut run = Command::new("gpg");
        run.arg("--homedir").arg(home.path()).arg("--batch").args(args);
        let out = run_in(&mut run, home.path());
        assert!(out.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let rsa = SigningKey::generate("RSA", Algorithm::Rsa4096, now() - DAY, None).unwrap();
    for key in [key(), rsa] {
        std::fs::write(file("key.asc"), key.to_armored_public().unwrap()).unwrap();
        gpg(&["--import", "key.asc"]);
        std::fs::write(file("data"), "data\n").unwrap();
        std::fs::write(file("data.asc"), key.sign_detached(&b"data\n"[..], now()).unwrap()).unwrap();
        gpg(&["--verify", "data.asc", "data"]);
        std::fs::write(file("data.sjson"), key.sign_cleartext("{\"-\":\n-1}\n", now()).unwrap()).unwrap();
        assert_eq!(gpg(&["--decrypt", "data.sjson"]), b"{\"-\":\n-1}\n");
    }
    gpg(&["--passphrase", "", "--quick-generate-key", "Gpg <g@example.org>", "ed25519", "sign", "never"]);
    let keyring = Keyring::from_bytes(&gpg(&["--export", "g@example.org"])).unwrap();
    let clear = run_in(
        Command::new("gpg")
            .arg("--homedir")
            .arg(home.path())
            .args(["--batch", "-u", "g@example.org"])
            .args(["--clearsign", "-o", "-", "data"]),
        home.path(),
    );
    let (text, _) = keyring.verify_cleartext(&clear.stdout, now()).unwrap();
    assert_eq!(text, b"data\n");
}

fn run_in(command: &mut Command, dir: &std::path::Path) -> std::process::Output {
    command.current_dir(dir).output().expect("gpg is needed for this test: install gnupg")
}
