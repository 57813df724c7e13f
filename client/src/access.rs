//! How a remote's servers are reached: proxy, client certificate, bearer token.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millstream_image::Sha256Digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::http::{HttpClient, HttpOptions};
use crate::{Error, Result};

/// The largest token or key file, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// What a remote needs beyond its URL to be reached. Secrets stay in files of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `http://HOST:PORT`, or `direct` for none; without it `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` of the environment count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// File with this client's certificates and private key, PEM, mode 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// File with a bearer token (RFC 6750), mode 0600. It is shown to the remote itself, not to its
    /// mirrors, and never without TLS but to this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<PathBuf>,
    /// File with `USER:PASSWORD` (RFC 7617), mode 0600, in place of a token: for registries that want a login,
    /// and web servers that ask for one. Goes where a token goes, and where a registry sends for tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<PathBuf>,
    /// SHA-256 of the one certificate that the server may show, whoever signed it, whatever its names and
    /// dates: what LXD and Incus call a certificate's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<Sha256Digest>,
}

impl Access {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What asks the server at `url`, which may have a private authority's certificate. Token and login go
    /// to no other host.
    ///
    /// # Errors
    /// When a file of secrets cannot be used, or would go without TLS to another machine.
    pub fn client(&self, url: &Url, ca: Option<&String>, options: &HttpOptions) -> Result<HttpClient> {
        let mut options = HttpOptions { access: self.clone(), ..options.clone() };
        options.ca_pem.extend(ca.cloned());
        HttpClient::new(&options)?.with_credential(&[], self.credential(url)?.as_ref())
    }

    /// Checks all of it, so that mistakes are told when a remote is added.
    pub(crate) fn check(&self, url: &Url) -> Result<()> {
        self.proxy()?;
        self.certificate()?;
        if self.server_certificate.is_some() && url.scheme() != "https" {
            let reason = "only https:// servers show a certificate";
            return Err(Error::Url { url: url.to_string(), reason: reason.into() });
        }
        self.credential(url).map(drop)
    }

    /// The proxy: from the environment, none, or one for everything.
    pub(crate) fn proxy(&self) -> Result<Proxy> {
        let Some(text) = &self.proxy else { return Ok(Proxy::Environment) };
        if text == "direct" {
            return Ok(Proxy::Direct);
        }
        let bad = |reason: String| Error::Url { url: crate::http::shown(text), reason };
        let url = Url::parse(text).map_err(|e| bad(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad("a proxy is written http://HOST:PORT".into()));
        }
        let proxy = reqwest::Proxy::all(url).map_err(|e| bad(e.to_string()))?;
        Ok(Proxy::This(Box::new(proxy.no_proxy(reqwest::NoProxy::from_env()))))
    }

    /// Certificates and private key.
    pub(crate) fn certificate(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let Some(path) = &self.client_certificate else { return Ok(None) };
        let pem = secret(path)?;
        let bad = |reason: &dyn std::fmt::Display| Error::Setup(format!("{}: {reason}", path.display()));
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad(&e))?;
        if chain.is_empty() {
            return Err(bad(&"no PEM certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| bad(&format!("its private key: {e}")))?;
        Ok(Some((chain, key)))
    }

    /// The token or login to show to the server at `url`.
    pub(crate) fn credential(&self, url: &Url) -> Result<Option<Credential>> {
        let path = match (&self.token, &self.login) {
            (None, None) => return Ok(None),
            (Some(path), None) | (None, Some(path)) => path,
            (Some(_), Some(_)) => {
                return Err(Error::Setup(format!("{url}: a token or a login, not both")));
            }
        };
        if url.scheme() != "https" && !is_here(url) {
            let reason = "a token or password would be seen by everybody on the way; use https://";
            return Err(Error::Url { url: url.to_string(), reason: reason.into() });
        }
        let text = String::from_utf8(secret(path)?).unwrap_or_default();
        let text = text.trim_end_matches(['\r', '\n']);
        let wrong = |what: &str| Error::Setup(format!("{}: it holds no {what} of one line", path.display()));
        if self.login.is_some() {
            let named = text.split_once(':').is_some_and(|(user, _)| !user.is_empty());
            let plain = !text.chars().any(char::is_control);
            return if named && plain {
                Ok(Some(Credential::login(text)))
            } else {
                Err(wrong("USER:PASSWORD"))
            };
        }
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("token"));
        }
        Ok(Some(Credential::Bearer(text.to_owned())))
    }
}

/// Whether a server is this very machine, so that nobody is on the way to it.
pub(crate) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What a server is shown to let us in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token (RFC 6750).
    Bearer(String),
    /// User and password in base64 (RFC 7617).
    Basic(String),
}

impl Credential {
    /// Of `USER:PASSWORD`.
    pub fn login(text: &str) -> Self {
        Self::Basic(STANDARD.encode(text))
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Bearer(token) => format!("Bearer {token}"),
            Self::Basic(login) => format!("Basic {login}"),
        }
    }
}

/// Shows nothing of it.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Which proxy is used.
#[derive(Debug)]
pub(crate) enum Proxy {
    /// The one of the environment.
    Environment,
    /// None.
    Direct,
    /// This one.
    This(Box<reqwest::Proxy>),
}

/// Reads a file that nobody else may read.
fn secret(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    let shown = path.display();
    if meta.mode() & 0o077 != 0 {
        return Err(Error::Setup(format!("{shown}: others may read it; type: chmod 600 {shown}")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(Error::Setup(format!("{shown}: it is larger than any token or key")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_secret_and_stay_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "abc.DEF-1\n").unwrap();
        let access = Access { token: Some(path.clone()), ..Access::default() };
        let token = |url: &str| access.credential(&Url::parse(url).unwrap());
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(token("https://h/").unwrap_err().to_string().contains("chmod 600"));
        mode(0o600);
        assert_eq!(token("https://h/").unwrap(), Some(Credential::Bearer("abc.DEF-1".into())));
        assert!(token("http://127.0.0.1:1/").is_ok());
        assert!(token("http://h/").is_err());
        for bad in ["", "a b", "a\nb"] {
            fs::write(&path, bad).unwrap();
            assert!(token("https://h/").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn logins_are_a_user_and_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("login");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let access = Access { login: Some(path.clone()), ..Access::default() };
        let shown = |text: &str| {
            fs::write(&path, text).unwrap();
            access.credential(&Url::parse("https://h/").unwrap())
        };
        // The example of RFC 7617.
        let known = shown("Aladdin:open sesame\n").unwrap().unwrap();
        assert_eq!(known.header(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{known:?}"), "Credential");
        for bad in ["", "user", ":password", "a:b\nc:d"] {
            assert!(shown(bad).is_err(), "{bad:?}");
        }
        fs::write(&path, "a:b").unwrap();
        assert!(access.credential(&Url::parse("http://h/").unwrap()).is_err());
        let both = Access { token: Some(path.clone()), ..access.clone() };
        assert!(both.credential(&Url::parse("https://h/").unwrap()).is_err());
    }

    #[test]
    fn proxies_are_urls_of_http() {
        let proxy = |text: &str| Access { proxy: Some(text.into()), ..Access::default() }.proxy();
        assert!(proxy("http://127.0.0.1:3128").is_ok() && proxy("direct").is_ok());
        for bad in ["", "h", "ftp://h", "socks5://h"] {
            assert!(proxy(bad).is_err(), "{bad:?}");
        }
    }
}
