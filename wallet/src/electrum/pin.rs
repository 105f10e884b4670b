//! Certificates pinned on first use.
//!
//! Most public Electrum servers sign their own certificates, so there is no authority to ask: the first certificate
//! seen is remembered, and any other one later is refused before a byte of ours is sent.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::FromHex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// The SHA-256 of a certificate (DER), as `openssl x509 -fingerprint -sha256` prints it, without the colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hex digits, with or without colons: the SHA-256 of the certificate")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: String = text.chars().filter(|&letter| letter != ':').collect();
        <[u8; 32]>::from_hex(&digits).map(Self).map_err(|_| FingerprintError)
    }
}

/// Accepts `expected`, or with none anything, and remembers what was offered.
#[derive(Debug)]
pub(super) struct PinVerifier {
    expected: Option<Fingerprint>,
    offered: Mutex<Option<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    pub(super) fn new(expected: Option<Fingerprint>) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Arc::new(Self { expected, offered: Mutex::new(None), provider })
    }

    /// The certificate that the server showed, once it has shown one.
    pub(super) fn offered(&self) -> Option<Fingerprint> {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A TLS configuration that trusts what this verifier trusts and nothing else.
    ///
    /// # Errors
    ///
    /// When the provider speaks no protocol version that rustls holds safe.
    pub(super) fn client_config(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        Ok(ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth())
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let offered = Fingerprint(sha256::Hash::hash(end_entity).to_byte_array());
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(offered);
        match self.expected {
            Some(expected) if expected != offered => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
