//! Signatures and certificates with one thing wrong each. Every case first shows that the same set-up
//! without the fault is accepted, so that a refusal can only be for the fault.

use std::time::{Duration, SystemTime};

use millstream_image::openpgp::{Algorithm, Keyring, SigningKey, Verified};
use sequoia_openpgp::cert::amalgamation::ValidateAmalgamation as _;
use sequoia_openpgp::cert::{Cert, CertBuilder, CertRevocationBuilder, CipherSuite, SubkeyRevocationBuilder};
use sequoia_openpgp::crypto::KeyPair;
use sequoia_openpgp::packet::key::{Key4, SecretParts, SubordinateRole};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::{Key, Packet};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{HashAlgorithm, KeyFlags, ReasonForRevocation, SignatureType};

const DAY: Duration = Duration::from_hours(24);
const DATA: &[u8] = b"data";

fn now() -> SystemTime {
    SystemTime::now()
}

fn builder() -> CertBuilder<'static> {
    CertBuilder::new()
        .add_userid("Test <t@example.org>")
        .set_cipher_suite(CipherSuite::Cv25519)
        .set_creation_time(now() - 10 * DAY)
        .set_primary_key_flags(KeyFlags::empty().set_certification())
}

fn signing() -> KeyFlags {
    KeyFlags::empty().set_signing()
}

/// A certificate whose first subkey signs, for so long.
fn with_subkey(validity: Option<Duration>) -> Cert {
    builder().add_subkey(signing(), validity, None).generate().unwrap().0
}

fn primary(cert: &Cert) -> KeyPair {
    cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap()
}

fn subkey(cert: &Cert, index: usize) -> KeyPair {
    let key = cert.keys().subkeys().nth(index).unwrap().key().clone();
    key.parts_into_secret().unwrap().into_keypair().unwrap()
}

fn keyring(cert: &Cert) -> Keyring {
    Keyring::from_bytes(&cert.to_vec().unwrap()).unwrap()
}

fn signature(made: SystemTime) -> SignatureBuilder {
    SignatureBuilder::new(SignatureType::Binary).set_signature_creation_time(made).unwrap()
}

fn sign(signature: SignatureBuilder, mut key: KeyPair) -> Vec<u8> {
    Packet::from(signature.sign_message(&mut key, DATA).unwrap()).to_vec().unwrap()
}

fn verify(cert: &Cert, signature: &[u8]) -> Result<Verified, String> {
    keyring(cert).verify_detached(DATA, signature, now()).map_err(|e| e.to_string())
}

/// Fails unless the signature is refused, and for this reason.
fn assert_refused(cert: &Cert, signature: &[u8], reason: &str) {
    let error = verify(cert, signature).unwrap_err();
    assert!(error.to_lowercase().contains(reason), "expected {reason:?}, got {error:?}");
}

#[test]
fn expired_signature_is_refused() {
    let cert = with_subkey(None);
    let lasting = |validity| signature(now() - 2 * DAY).set_signature_validity_period(validity).unwrap();
    verify(&cert, &sign(lasting(3 * DAY), subkey(&cert, 0))).unwrap();
    assert_refused(&cert, &sign(lasting(DAY), subkey(&cert, 0)), "expired");
}

#[test]
fn expired_subkey_is_refused_even_for_a_signature_of_its_time() {
    let (live, expired) = (with_subkey(Some(20 * DAY)), with_subkey(Some(2 * DAY)));
    for made in [now(), now() - 9 * DAY] {
        verify(&live, &sign(signature(made), subkey(&live, 0))).unwrap();
        assert_refused(&expired, &sign(signature(made), subkey(&expired, 0)), "not live");
    }
}

#[test]
fn expired_certificate_is_refused_even_with_a_live_subkey() {
    let of = |validity| {
        let cert = builder().set_validity_period(validity).add_subkey(signing(), 20 * DAY, None);
        cert.generate().unwrap().0
    };
    let (live, expired) = (of(20 * DAY), of(2 * DAY));
    verify(&live, &sign(signature(now()), subkey(&live, 0))).unwrap();
    for made in [now(), now() - 9 * DAY] {
        assert_refused(&expired, &sign(signature(made), subkey(&expired, 0)), "not live");
    }
}

#[test]
fn expired_subkey_beside_a_live_one_does_no_harm() {
    let cert = builder().add_subkey(signing(), 2 * DAY, None).add_subkey(signing(), None, None);
    let cert = cert.generate().unwrap().0;
    // Their order is that of their fingerprints.
    let policy = StandardPolicy::new();
    let first_lasts =
        cert.keys().subkeys().next().unwrap().with_policy(&policy, None).unwrap().alive().is_ok();
    let made = |index| sign(signature(now()), subkey(&cert, index));
    let (old, live) = (made(usize::from(first_lasts)), made(usize::from(!first_lasts)));
    assert_refused(&cert, &old, "not live");
    verify(&cert, &live).unwrap();
    // Both signatures in one file: the good one counts, once.
    for both in [[&old[..], &live].concat(), [&live[..], &old].concat(), [&live[..], &live].concat()] {
        assert_eq!(verify(&cert, &both).unwrap().signers.len(), 1);
    }
}

#[test]
fn revoked_certificate_is_refused() {
    let cert = with_subkey(None);
    // An ordinary reason counts from its date on, and by what the thief of the key says of the time.
    for reason in [ReasonForRevocation::KeyCompromised, ReasonForRevocation::KeyRetired] {
        let revocation = CertRevocationBuilder::new()
            .set_reason_for_revocation(reason, b"test")
            .unwrap()
            .set_signature_creation_time(now() - DAY)
            .unwrap()
            .build(&mut primary(&cert), &cert, None)
            .unwrap();
        let revoked = cert.clone().insert_packets(revocation).unwrap().0;
        for made in [now(), now() - 5 * DAY] {
            let signature = sign(signature(made), subkey(&cert, 0));
            verify(&cert, &signature).unwrap();
            assert_refused(&revoked, &signature, "revoked");
        }
    }
}

#[test]
fn revoked_subkey_is_refused() {
    let cert = builder().add_subkey(signing(), None, None).add_subkey(signing(), None, None);
    let cert = cert.generate().unwrap().0;
    let key = cert.keys().subkeys().next().unwrap().key().clone();
    for reason in [ReasonForRevocation::KeyCompromised, ReasonForRevocation::KeyRetired] {
        let revocation = SubkeyRevocationBuilder::new()
            .set_reason_for_revocation(reason, b"test")
            .unwrap()
            .set_signature_creation_time(now() - DAY)
            .unwrap()
            .build(&mut primary(&cert), &cert, &key, None)
            .unwrap();
        let revoked = cert.clone().insert_packets(revocation).unwrap().0;
        for made in [now(), now() - 5 * DAY] {
            let signature = sign(signature(made), subkey(&cert, 0));
            verify(&cert, &signature).unwrap();
            assert_refused(&revoked, &signature, "revoked");
        }
        verify(&revoked, &sign(signature(now()), subkey(&cert, 1))).unwrap();
    }
}

/// Binds a new signing subkey; the back-signature is left away unless asked for.
fn bound(back: bool) -> (Cert, KeyPair) {
    let cert = builder().generate().unwrap().0;
    let key: Key4<SecretParts, SubordinateRole> = Key4::generate_ed25519().unwrap();
    let mut key = Key::from(key);
    key.set_creation_time(now() - 9 * DAY).unwrap();
    let made = now() - 9 * DAY;
    let mut pair = key.clone().into_keypair().unwrap();
    let mut binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .set_signature_creation_time(made)
        .unwrap()
        .set_key_flags(signing())
        .unwrap();
    if back {
        let back = SignatureBuilder::new(SignatureType::PrimaryKeyBinding)
            .set_signature_creation_time(made)
            .unwrap()
            .sign_primary_key_binding(&mut pair, cert.primary_key().key(), &key)
            .unwrap();
        binding = binding.set_embedded_signature(back).unwrap();
    }
    let binding = key.bind(&mut primary(&cert), &cert, binding).unwrap();
    let packets = [Packet::from(key), Packet::from(binding)];
    (cert.insert_packets(packets).unwrap().0, pair)
}

#[test]
fn signing_subkey_without_back_signature_is_refused() {
    // Without it anybody could claim another's signing key, and with it that one's signatures.
    let (cert, pair) = bound(true);
    verify(&cert, &sign(signature(now()), pair)).unwrap();
    let (cert, pair) = bound(false);
    assert!(verify(&cert, &sign(signature(now()), pair)).is_err());
}

#[test]
fn subkey_that_may_not_sign_is_refused() {
    let cert = builder().add_subkey(KeyFlags::empty().set_authentication(), None, None);
    let cert = cert.generate().unwrap().0;
    assert!(verify(&cert, &sign(signature(now()), subkey(&cert, 0))).is_err());
    assert!(verify(&cert, &sign(signature(now()), primary(&cert))).is_err(), "it certifies only");
}

#[test]
fn signature_or_key_from_the_future_is_refused() {
    let cert = with_subkey(None);
    verify(&cert, &sign(signature(now() + Duration::from_mins(2)), subkey(&cert, 0))).unwrap();
    assert!(verify(&cert, &sign(signature(now() + Duration::from_mins(8)), subkey(&cert, 0))).is_err());
    let future = builder().set_creation_time(now() + DAY).add_subkey(signing(), None, None);
    let future = future.generate().unwrap().0;
    assert!(verify(&future, &sign(signature(now() + DAY), subkey(&future, 0))).is_err());
    // One that is older than its own key was not made by it.
    assert!(verify(&cert, &sign(signature(now() - 20 * DAY), subkey(&cert, 0))).is_err());
}

#[test]
fn weak_hashes_and_short_keys_are_refused() {
    let cert = with_subkey(None);
    for good in [HashAlgorithm::SHA256, HashAlgorithm::SHA512] {
        verify(&cert, &sign(signature(now()).set_hash_algo(good), subkey(&cert, 0))).unwrap();
    }
    let weak = sign(signature(now()).set_hash_algo(HashAlgorithm::SHA1), subkey(&cert, 0));
    assert!(verify(&cert, &weak).is_err());
    let rsa =
        |suite| builder().set_cipher_suite(suite).add_subkey(signing(), None, None).generate().unwrap().0;
    let short = rsa(CipherSuite::RSA2k);
    assert!(verify(&short, &sign(signature(now()), subkey(&short, 0))).is_err());
    let long = rsa(CipherSuite::RSA3k);
    verify(&long, &sign(signature(now()), subkey(&long, 0))).unwrap();
}

#[test]
fn zero_signatures_are_refused() {
    let key = SigningKey::generate("t", Algorithm::Ed25519, now() - DAY, None).unwrap();
    let empty = "-----BEGIN PGP SIGNATURE-----\n\n=twTO\n-----END PGP SIGNATURE-----\n";
    let public = key.to_armored_public().unwrap();
    for nothing in ["", "\n", "text", empty, public.as_str()] {
        assert!(key.keyring().verify_detached(DATA, nothing.as_bytes(), now()).is_err(), "{nothing:?}");
    }
    let text = key.sign_cleartext("{}\n", now()).unwrap();
    key.keyring().verify_cleartext(text.as_bytes(), now()).unwrap();
    let (body, _) = text.split_once("-----BEGIN PGP SIGNATURE-----").unwrap();
    for end in ["", empty] {
        assert!(key.keyring().verify_cleartext(format!("{body}{end}").as_bytes(), now()).is_err(), "{end:?}");
    }
    // A message signed in the other form, whose text no reader of lines would find.
    assert!(key.keyring().verify_cleartext(DATA, now()).is_err());
}

#[test]
fn signature_copied_from_another_file_is_refused() {
    let key = SigningKey::generate("t", Algorithm::Ed25519, now() - DAY, None).unwrap();
    let other = key.sign_detached(&b"other"[..], now()).unwrap();
    assert!(key.keyring().verify_detached(DATA, other.as_bytes(), now()).is_err());
    let (one, two) = (key.sign_cleartext("1\n", now()).unwrap(), key.sign_cleartext("2\n", now()).unwrap());
    let begin = "-----BEGIN PGP SIGNATURE-----";
    let (body, _) = one.split_once(begin).unwrap();
    let (_, signature) = two.split_once(begin).unwrap();
    let mixed = format!("{body}{begin}{signature}");
    assert!(key.keyring().verify_cleartext(mixed.as_bytes(), now()).is_err());
}

#[test]
fn odd_shapes_of_a_signed_text_are_refused() {
    let key = SigningKey::generate("t", Algorithm::Ed25519, now() - DAY, None).unwrap();
    let message = key.sign_cleartext("one\ntwo\n", now()).unwrap();
    let keyring = key.keyring();
    keyring.verify_cleartext(message.as_bytes(), now()).unwrap();
    let begin = "-----BEGIN PGP SIGNED MESSAGE-----\n";
    let signature = "-----BEGIN PGP SIGNATURE-----\n";
    let end = "-----END PGP SIGNATURE-----\n";
    let cases: [(&str, String); 14] = [
        ("text before", format!("evil\n{message}")),
        ("a blank line before", format!("\n{message}")),
        ("a byte order mark before", format!("\u{feff}{message}")),
        ("text after", format!("{message}evil\n")),
        ("two messages", format!("{message}{message}")),
        ("a second signature block", format!("{message}{signature}\n{end}")),
        ("a comment", message.replacen(begin, &format!("{begin}Comment: x\n"), 1)),
        ("a charset", message.replacen(begin, &format!("{begin}Charset: utf-8\n"), 1)),
        ("text as a header", message.replacen(begin, &format!("{begin}evil\n"), 1)),
        ("a hash with text", message.replacen(begin, &format!("{begin}Hash: SHA512 {{\"evil\"}}\n"), 1)),
        ("blanks for a blank line", message.replacen("\n\n", "\n  \nevil\n\n", 1)),
        ("a dash unescaped", message.replacen("one", "-----one", 1)),
        ("no begin", message.replacen(begin, "", 1)),
        ("no end", message.replacen(end, "", 1)),
    ];
    for (name, bad) in cases {
        assert_ne!(bad, message, "{name}");
        let error = keyring.verify_cleartext(bad.as_bytes(), now()).expect_err(name).to_string();
        assert!(error.contains("signed text refused"), "{name}: {error}");
    }
    let mut bytes = message.clone().into_bytes();
    bytes[begin.len() + 20] = 0xff;
    assert!(keyring.verify_cleartext(&bytes, now()).is_err(), "not UTF-8");
}

#[test]
fn all_forms_of_a_document_agree_to_the_byte() {
    let key = SigningKey::generate("t", Algorithm::Ed25519, now() - DAY, None).unwrap();
    for document in ["{}\n", "- a\n-----b\n", "\n", "a\n\n b\n", "\u{e9}\u{1f980}\n"] {
        let signed = key.sign_cleartext(document, now()).unwrap();
        let (text, _) = key.keyring().verify_cleartext(signed.as_bytes(), now()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), document);
        let detached = key.sign_detached(document.as_bytes(), now()).unwrap();
        key.keyring().verify_detached(document.as_bytes(), detached.as_bytes(), now()).unwrap();
    }
    // Verifiers see no blanks at the ends of lines: what would come back changed is not signed.
    for document in ["a \nb\n", "a\t\n", "a\r\n", " \n", "a\n\n", "a"] {
        assert!(key.sign_cleartext(document, now()).is_err(), "{document:?}");
    }
}
