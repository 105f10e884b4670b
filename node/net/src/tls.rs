//! TLS 1.3 over TCP as libp2p specifies it, with the cipher that this machine is fast at.
//!
//! WHY our own: `libp2p-tls` offers ChaCha20 first and has no setting for it, so that two nodes never use the AES of their
//! processors (deploy/decisions). Certificates are made, parsed and verified by `libp2p-tls` still, and whoever uses that
//! crate can talk to us. No session is resumed: nothing of a connection is kept for the next.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    option,
    pin::Pin,
    sync::Arc,
};

use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    tls::{certificate, make_client_config, make_server_config},
};
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
            default_provider,
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

/// The name that is negotiated, and the one inside TLS.
const PROTOCOL: &str = "/tls/1.0.0";
const ALPN: &[u8] = b"libp2p";

/// Signatures of a handshake that `libp2p-tls` can verify, the fastest first.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// Why a connection is not secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Our certificate can't be made.
    #[error("making a certificate: {0}")]
    Certificate(#[from] certificate::GenError),
    /// TLS refuses our configuration.
    #[error("configuring TLS: {0}")]
    Config(#[from] rustls::Error),
    /// The handshake failed; the error's own text may be the peer's.
    #[error("the handshake failed: {}", .0.kind())]
    Handshake(#[from] io::Error),
    /// The peer's certificate names nobody.
    #[error("the peer has no valid certificate")]
    Peer,
}

/// Secures connections with this node's key.
#[derive(Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    offered: bool,
}

impl Tls {
    /// TLS with this key; not `offered`, it is never chosen.
    ///
    /// # Errors
    /// [`TlsError::Certificate`], [`TlsError::Config`].
    pub(crate) fn new(key: &Keypair, offered: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(CryptoProvider { cipher_suites: ciphers(has_aes()), ..default_provider() });
        let (verifier, alpn) = (Arc::new(Verifier), vec![ALPN.to_vec()]);
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(make_client_config(key, None)?.client_auth_cert_resolver);
        client.alpn_protocols.clone_from(&alpn);
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(make_server_config(key)?.cert_resolver);
        server.alpn_protocols = alpn;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), offered })
    }
}

impl UpgradeInfo for Tls {
    type Info = &'static str;
    type InfoIter = option::IntoIter<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.offered.then_some(PROTOCOL).into_iter()
    }
}

/// A handshake under way.
type Handshake<C> = Pin<Box<dyn Future<Output = Result<(PeerId, TlsStream<C>), TlsError>> + Send>>;

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Tls {
    type Output = (PeerId, TlsStream<C>);
    type Error = TlsError;
    type Future = Handshake<C>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Handshake<C> {
        Box::pin(async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Tls {
    type Output = (PeerId, TlsStream<C>);
    type Error = TlsError;
    type Future = Handshake<C>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Handshake<C> {
        Box::pin(async move {
            // An address that is none: no name is to be sent, the peer is known by its key.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let stream = TlsConnector::from(self.client).connect(name, socket).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        })
    }
}

/// Whom the handshake has authenticated.
fn peer_of(state: &CommonState) -> Result<PeerId, TlsError> {
    let Some([certificate]) = state.peer_certificates() else {
        return Err(TlsError::Peer);
    };
    Ok(certificate::parse(certificate).map_err(|_| TlsError::Peer)?.peer_id())
}

/// The ciphers of TLS 1.3; the one that dials has the choice, so its fastest comes first.
fn ciphers(has_aes: bool) -> Vec<SupportedCipherSuite> {
    let mut ciphers = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes {
        ciphers.rotate_right(1);
    }
    ciphers
}

/// Whether the processor computes AES itself; in software it is several times slower than ChaCha20.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    has_aes
}

/// Takes one self-signed certificate that carries the key of a peer, whoever that is: the swarm compares.
#[derive(Debug)]
struct Verifier;

impl Verifier {
    fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::General("one certificate is due".to_owned()));
        }
        Ok(certificate::parse(certificate).map(drop)?)
    }

    fn check_signature(
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Never asked for, since only TLS 1.3 is spoken.
    fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is due".to_owned()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(certificate, message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(certificate, message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::try_join;
    use libp2p::tls;
    use tokio::io::duplex;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    const BUFFER: usize = 64 << 10;

    #[tokio::test]
    async fn two_of_us_know_each_other_and_use_the_fast_cipher() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (dialer, listener) = (Tls::new(&ours, true).unwrap(), Tls::new(&theirs, true).unwrap());
        let (near, far) = duplex(BUFFER);
        let dialled = dialer.upgrade_outbound(near.compat(), PROTOCOL);
        let accepted = listener.upgrade_inbound(far.compat(), PROTOCOL);
        let ((listener, stream), (dialer, _)) = try_join(dialled, accepted).await.unwrap();
        assert_eq!((dialer, listener), (ours.public().to_peer_id(), theirs.public().to_peer_id()));
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(suite.suite(), ciphers(has_aes())[0].suite());
    }

    #[tokio::test]
    async fn whoever_uses_the_tls_of_libp2p_is_understood_in_both_directions() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (tls, other) = (Tls::new(&ours, true).unwrap(), tls::Config::new(&theirs).unwrap());
        let (near, far) = duplex(BUFFER);
        let dialled = async { tls.clone().upgrade_outbound(near.compat(), PROTOCOL).await.map_err(|e| e.to_string()) };
        let accepted = async { other.clone().upgrade_inbound(far.compat(), PROTOCOL).await.map_err(|e| e.to_string()) };
        let ((seen, _), (us, _)) = try_join(dialled, accepted).await.unwrap();
        assert_eq!((seen, us), (theirs.public().to_peer_id(), ours.public().to_peer_id()));
        let (near, far) = duplex(BUFFER);
        let dialled = async { other.upgrade_outbound(near.compat(), PROTOCOL).await.map_err(|e| e.to_string()) };
        let accepted = async { tls.upgrade_inbound(far.compat(), PROTOCOL).await.map_err(|e| e.to_string()) };
        let ((us, _), (seen, _)) = try_join(dialled, accepted).await.unwrap();
        assert_eq!((seen, us), (theirs.public().to_peer_id(), ours.public().to_peer_id()));
    }

    #[test]
    fn without_aes_in_hardware_chacha_comes_first() {
        assert_eq!(ciphers(false)[0].suite(), TLS13_CHACHA20_POLY1305_SHA256.suite());
        assert_eq!(ciphers(true)[0].suite(), TLS13_AES_128_GCM_SHA256.suite());
    }
}
