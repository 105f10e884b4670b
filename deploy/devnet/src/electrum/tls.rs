//! TLS before the server, with a certificate that it signs itself, as most public Electrum servers do.

use std::io;
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use futures_rustls::TlsAcceptor;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate for loopback, and its key.
#[derive(Clone)]
pub struct Certificate {
    /// Its SHA-256 in hex, as wallets pin it.
    pub fingerprint: String,
    pub(super) acceptor: TlsAcceptor,
}

impl Certificate {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness for its key.
    pub fn generate() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).map_err(io::Error::other)?;
        let cert = CertificateDer::from(made.cert);
        let fingerprint = sha256::Hash::hash(&cert).to_string();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(vec![cert], key));
        let acceptor = TlsAcceptor::from(Arc::new(config.map_err(io::Error::other)?));
        Ok(Self { fingerprint, acceptor })
    }
}
