//! Servers that no authority vouches for: known by the SHA-256 of their certificate, as LXD and Incus
//! show it to whoever adds one.

use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use millstream_image::Sha256Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::{HttpClient, HttpOptions};
use crate::{Error, Result};

/// Accepts one certificate and no other. That the server has its key is checked as always.
#[derive(Debug)]
pub(super) struct Pinned {
    /// Nothing accepts none: then the connection is only for looking.
    wanted: Option<Sha256Digest>,
    shown: Mutex<Option<Sha256Digest>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    pub(super) fn new(wanted: Option<Sha256Digest>) -> Self {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Self { wanted, shown: Mutex::default(), algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Sha256Digest::of(certificate);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        if self.wanted == Some(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Another(shown))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Another certificate than the one accepted.
#[derive(Debug)]
struct Another(Sha256Digest);

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its fingerprint is {}, not the one that was accepted", self.0)
    }
}

impl std::error::Error for Another {}

/// Why a certificate was refused, if that is what an error says.
pub(super) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut inner = error;
    // What an I/O error wraps is not its source.
    while let Some(wrapped) = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        inner = wrapped;
    }
    let error = inner.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(own)) => Some(own.to_string()),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(format!(
            "{error} (nobody trusted signed this certificate; name its authority with --ca FILE, or accept \
             this one alone with --accept-certificate FINGERPRINT)"
        )),
        rustls::Error::InvalidCertificate(_) => Some(error.to_string()),
        _ => None,
    }
}

/// The fingerprint of the certificate that a server shows now. It proves nothing: compare it with one from
/// elsewhere before it is accepted.
pub(crate) async fn offered(url: &str, options: &HttpOptions) -> Result<Sha256Digest> {
    let look = Arc::new(Pinned::new(None));
    let asked = HttpClient::verifying(options, Some(Arc::clone(&look)))?.get(url, 0, None).await;
    let shown = *look.shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown.ok_or_else(|| match asked {
        Err(error) => error,
        Ok(_) => Error::Url { url: url.to_owned(), reason: "this server shows no certificate".into() },
    })
}
