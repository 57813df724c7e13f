//! Certificates: a local authority of one's own, so that a server works at once, or files that the
//! operator brings.
//!
//! `ca.crt` is what clients trust and lives for ten years. `server.crt` is made anew when it comes
//! near its end, lacks a name, or is not by the present authority; otherwise it stays, because
//! some clients pin it. Both keys are 0600.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, Datelike, Days, Utc};
use millstream_image::atomic;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustix::fs::{FlockOperation, flock};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::http::AnyClient;
use crate::{Error, Result};

/// Days an authority lives.
const CA_DAYS: u64 = 3650;
/// Days a server certificate lives; browsers take no longer ones.
const SERVER_DAYS: u64 = 397;
/// A server certificate with fewer days left is replaced.
const RENEW_DAYS: u64 = 30;

/// The authority and the server certificate in one directory.
#[derive(Clone, Debug)]
pub struct LocalAuthority {
    dir: PathBuf,
}

impl LocalAuthority {
    /// The authority in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// What clients have to trust.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Where the server's certificate and key are.
    pub fn server_paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("server.crt"), self.dir.join("server.key"))
    }

    /// Settings for a server that is called `names`; makes what is missing and renews what ends
    /// soon.
    ///
    /// # Errors
    /// [`Error::Tls`] for a file that is not what its name says. An authority is never replaced:
    /// clients trust it.
    pub fn server_config(&self, names: &[String], now: SystemTime) -> Result<Arc<ServerConfig>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(Error::io(&self.dir))?;
        let lock = File::open(&self.dir).map_err(Error::io(&self.dir))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|errno| Error::io(&self.dir)(errno.into()))?;
        let now = DateTime::<Utc>::from(now);
        let ca = self.authority(now)?;
        let (cert, key) = (self.dir.join("server.crt"), self.dir.join("server.key"));
        if !self.still_good(&cert, &key, names, now)? {
            issue(&ca, &self.ca_path(), &cert, &key, names, now)?;
        }
        from_files(&cert, &key)
    }

    fn authority(&self, now: DateTime<Utc>) -> Result<Issuer<'static, KeyPair>> {
        let (cert_path, key_path) = (self.ca_path(), self.dir.join("ca.key"));
        let key = match fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| Error::tls(&key_path, e))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(|e| Error::tls(&key_path, e))?;
                write(&key_path, &key.serialize_pem(), 0o600)?;
                key
            }
            Err(error) => return Err(Error::io(&key_path)(error)),
        };
        if !cert_path.exists() {
            let mut params = params(&format!("Millstream local CA of {}", host_name()), CA_DAYS, now);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let cert = params.self_signed(&key).map_err(|e| Error::tls(&cert_path, e))?;
            write(&cert_path, &cert.pem(), 0o644)?;
        }
        let der = certificate(&cert_path)?;
        let parsed = parse(&cert_path, &der)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::tls(&cert_path, format!("not the certificate of {}", key_path.display())));
        }
        if parsed.validity().not_after.timestamp() <= now.timestamp() {
            let reason = format!(
                "it has expired; remove it and {}, and let clients trust the new one",
                key_path.display()
            );
            return Err(Error::tls(&cert_path, reason));
        }
        Issuer::from_ca_cert_der(&der, key).map_err(|e| Error::tls(&cert_path, e))
    }

    /// Whether the server's certificate has all names, time left, and is by the present authority.
    fn still_good(&self, cert: &Path, key: &Path, names: &[String], now: DateTime<Utc>) -> Result<bool> {
        if !cert.exists() || !key.exists() {
            return Ok(false);
        }
        let ca_der = certificate(&self.ca_path())?;
        let ca = parse(&self.ca_path(), &ca_der)?;
        let Ok(der) = certificate(cert) else { return Ok(false) };
        let Ok(parsed) = parse(cert, &der) else { return Ok(false) };
        let renew = now.checked_add_days(Days::new(RENEW_DAYS)).unwrap_or(now);
        let has = alternative_names(&parsed);
        Ok(parsed.validity().not_after.timestamp() > renew.timestamp()
            && names.iter().all(|name| has.contains(&name.to_lowercase()))
            && parsed.verify_signature(Some(ca.public_key())).is_ok()
            && from_files(cert, key).is_ok())
    }
}

/// The names and addresses a server at `listen` is reached by: this host's, and `extra`.
pub fn names(listen: SocketAddr, extra: &[String]) -> Vec<String> {
    let host = host_name();
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.push(host.clone());
    if listen.ip().is_unspecified() {
        let addresses = (host.as_str(), 0).to_socket_addrs().into_iter().flatten();
        names.extend(addresses.map(|address| address.ip().to_string()));
    } else {
        names.push(listen.ip().to_string());
    }
    names.extend(extra.iter().cloned());
    let mut seen = Vec::new();
    names.retain(|name| {
        let name = name.to_lowercase();
        let new = !name.is_empty() && !seen.contains(&name);
        seen.push(name);
        new
    });
    names
}

/// Settings for a certificate chain and key in PEM files.
///
/// # Errors
/// [`Error::Tls`] when one is no PEM, or the key is not the certificate's.
pub fn from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    config(cert, key, false)
}

/// As [`from_files`]; clients are asked for a certificate, and may have none.
///
/// # Errors
/// As there.
pub fn from_files_asking(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    config(cert, key, true)
}

fn config(cert: &Path, key: &Path, ask: bool) -> Result<Arc<ServerConfig>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| pem_error(cert, &error))?;
    if chain.is_empty() {
        return Err(Error::tls(cert, "it holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::tls(cert, e))?;
    let builder = if ask {
        builder.with_client_cert_verifier(Arc::new(AnyClient(provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain, secret)
        .map_err(|e| Error::tls(cert, format!("it cannot be used with {}: {e}", key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn issue(
    ca: &Issuer<'_, KeyPair>,
    ca_path: &Path,
    cert: &Path,
    key: &Path,
    names: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    let common = names.first().map_or("localhost", String::as_str);
    let mut leaf = params(common, SERVER_DAYS, now);
    let bad = |e: rcgen::Error| Error::tls(cert, e);
    leaf.subject_alt_names = CertificateParams::new(names).map_err(bad)?.subject_alt_names;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let secret = KeyPair::generate().map_err(bad)?;
    let made = leaf.signed_by(&secret, ca).map_err(bad)?;
    let authority = fs::read_to_string(ca_path).map_err(Error::io(ca_path))?;
    write(key, &secret.serialize_pem(), 0o600)?;
    write(cert, &(made.pem() + &authority), 0o644)
}

fn params(common_name: &str, days: u64, now: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // From yesterday on, for clients whose clock is a little behind.
    let date = |time: DateTime<Utc>| date_time_ymd(time.year(), time.month() as u8, time.day() as u8);
    params.not_before = date(now.checked_sub_days(Days::new(1)).unwrap_or(now));
    params.not_after = date(now.checked_add_days(Days::new(days)).unwrap_or(now));
    params
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).map_err(|error| pem_error(path, &error))
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|e| Error::tls(path, e))
}

/// Names and addresses of a certificate, as [`names`] writes them.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn pem_error(path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    match error {
        rustls::pki_types::pem::Error::Io(error) => Error::tls(path, format!("cannot be read: {error}")),
        error => Error::tls(path, format!("not a PEM file with what is needed: {error}")),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    atomic::write_with_mode(path, text.as_bytes(), mode).map_err(Error::image(path))
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) { "localhost".into() } else { name.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn certificate_is_kept_until_a_name_or_time_is_missing_and_the_authority_always() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let authority = LocalAuthority::new(&dir);
        let now = SystemTime::now();
        let names = names("127.0.0.1:0".parse().unwrap(), &[]);
        authority.server_config(&names, now).unwrap();
        let (ca, first) = (read(&dir, "ca.crt"), read(&dir, "server.crt"));
        authority.server_config(&names, now).unwrap();
        assert_eq!(read(&dir, "server.crt"), first, "kept");
        let more = super::names("127.0.0.1:0".parse().unwrap(), &["Images.example.org".into()]);
        authority.server_config(&more, now).unwrap();
        let second = read(&dir, "server.crt");
        assert_ne!(second, first, "a name was missing");
        authority.server_config(&more, now).unwrap();
        assert_eq!(read(&dir, "server.crt"), second, "names are compared in lower case");
        authority.server_config(&more, now + 380 * DAY).unwrap();
        assert_ne!(read(&dir, "server.crt"), second, "near its end");
        assert_eq!(read(&dir, "ca.crt"), ca);
        for secret in ["ca.key", "server.key"] {
            assert_eq!(fs::metadata(dir.join(secret)).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_authority_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let authority = LocalAuthority::new(dir.path());
        let names = names("[::1]:0".parse().unwrap(), &[]);
        authority.server_config(&names, SystemTime::now()).unwrap();
        fs::write(authority.ca_path(), "x").unwrap();
        let error = authority.server_config(&names, SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        assert_eq!(read(dir.path(), "ca.crt"), "x");
    }

    #[test]
    fn key_of_another_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let names = names("127.0.0.1:0".parse().unwrap(), &[]);
        LocalAuthority::new(dir.path()).server_config(&names, SystemTime::now()).unwrap();
        let (cert, key) = (dir.path().join("server.crt"), dir.path().join("ca.key"));
        let error = from_files(&cert, &key).unwrap_err().to_string();
        assert!(error.contains("server.crt") && error.contains("ca.key"), "{error}");
    }
}
