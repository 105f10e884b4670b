//! One Electrum server: connecting to it and calling it, within bounds.

pub(crate) mod line;
mod pin;
mod stream;
#[cfg(test)]
mod tests;
mod url;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bdk_electrum::BdkElectrumClient;
use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, FeeRate, Transaction};
use electrum_client::ElectrumApi;
use electrum_client::raw_client::RawClient;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::network::MAX_HEIGHT;
use pin::PinVerifier;
use stream::{Budget, LineLimit, TimedSocket};

pub use pin::{Fingerprint, FingerprintError};
pub use url::{ServerUrl, UrlError};

/// The longest that one address of a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How far a server may be behind the best, in blocks (MONEY.md 3.3): news travel at different speed.
pub(crate) const MAX_BEHIND: u32 = 2;
/// How many of a name's addresses are tried: a name that lists hundreds mustn't hold the line.
const MAX_ADDRESSES: usize = 4;
/// Scripts asked for in one round trip. Servers answer a batch in about the time of one (500 in 0.2 s, 5 took 10 s).
const BATCH: usize = 500;
/// Blocks within which an estimated fee should confirm: a top-up is waited for, but not at any price.
const FEE_TARGET: usize = 3;
/// The same for what must not wait: the close of a channel (MONEY.md 5).
const URGENT_TARGET: usize = 2;
/// Estimates outside are mistakes or lies and are ignored, in sat per 1,000 vB: up to 10,000 sat/vB.
const PLAUSIBLE_FEE: std::ops::RangeInclusive<f64> = 1.0..=10_000_000.0;

type Stream = LineLimit<Box<dyn ReadWrite>>;
type Client = BdkElectrumClient<RawClient<Stream>>;

pub(crate) trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// What a server must be to be used.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) genesis: BlockHash,
    /// The hash of block 1, once known: what tells one regtest chain from another.
    pub(crate) block_1: Option<BlockHash>,
    /// The certificate of its first connection, if it has TLS and was met before.
    pub(crate) pin: Option<Fingerprint>,
}

/// What a server showed when it was connected to.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) block_1: BlockHash,
    pub(crate) certificate: Option<Fingerprint>,
}

/// What a server shows to one who only looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The height of its chain.
    pub tip_height: u32,
    /// The time that its newest block names, in seconds since the epoch.
    pub tip_time_s: u32,
    /// The certificate that it shows, if it speaks TLS.
    pub certificate: Option<Fingerprint>,
}

/// Connects to a server, looks at the tip of its chain, and hangs up.
///
/// # Errors
///
/// Why it can't be used.
pub(crate) fn look(url: &ServerUrl, expected: &Expected) -> Result<Seen, ServerFault> {
    let (server, Greeting { certificate, .. }) = Server::connect(url, expected, drop)?;
    let tip_time_s = server.job(|client| client.inner.block_headers_subscribe())?.header.time;
    Ok(Seen { tip_height: server.tip()?, tip_time_s, certificate })
}

/// A connected server.
struct Server {
    client: Client,
    budget: Budget,
}

impl Server {
    /// Connects, checks the certificate, agrees on a protocol version and checks that it serves `expected`'s chain.
    ///
    /// `opened` is given a clone of the socket, through which another thread can end whatever is under way.
    ///
    /// # Errors
    ///
    /// Why this server can't be used; nothing was sent when its certificate is the reason.
    fn connect(
        url: &ServerUrl,
        expected: &Expected,
        opened: impl FnOnce(TcpStream),
    ) -> Result<(Self, Greeting), ServerFault> {
        let socket = dial(url)?;
        socket.set_nodelay(true).map_err(ServerFault::of_io)?;
        opened(socket.try_clone().map_err(ServerFault::of_io)?);
        let budget = Budget::new();
        budget.start_job();
        let socket = TimedSocket::new(socket, budget.clone());
        if url.tls {
            let (stream, certificate) = handshake(url, expected.pin, socket)?;
            Self::greet(Box::new(stream), budget, expected, Some(certificate))
        } else {
            Self::greet(Box::new(socket), budget, expected, None)
        }
    }

    /// Agrees on a protocol version over an open stream, and checks that `expected`'s chain is served there.
    fn greet(
        stream: Box<dyn ReadWrite>,
        budget: Budget,
        expected: &Expected,
        certificate: Option<Fingerprint>,
    ) -> Result<(Self, Greeting), ServerFault> {
        let client = BdkElectrumClient::new(RawClient::from(LineLimit::new(stream, budget.clone())));
        let server = Self { client, budget };
        let genesis = server.job(|client| {
            client.inner.protocol_version()?;
            client.inner.block_header(0)
        })?;
        check_block(expected.genesis, &genesis)?;
        let block_1 = server.job(|client| client.inner.block_header(1)).map_err(|fault| match fault {
            ServerFault::Refused => ServerFault::EmptyChain,
            fault => fault,
        })?;
        expected.block_1.map_or(Ok(()), |known| check_block(known, &block_1))?;
        Ok((server, Greeting { block_1: block_1.block_hash(), certificate }))
    }

    /// Runs one job against the server, within the time and bytes of one.
    ///
    /// # Errors
    ///
    /// After any fault but `Refused` the connection is out of step and must be dropped.
    fn job<T>(&self, run: impl FnOnce(&Client) -> Result<T, electrum_client::Error>) -> Result<T, ServerFault> {
        self.budget.start_job();
        // The libraries index and assert on what a server says (for example the count of headers): its lie must
        // not end the wallet. After a panic the client is dropped, so nobody sees it half changed.
        match catch_unwind(AssertUnwindSafe(|| run(&self.client))) {
            Ok(result) => result.map_err(ServerFault::of),
            Err(_) => Err(ServerFault::Misbehaved),
        }
    }

    /// How high the server's chain is.
    fn tip(&self) -> Result<u32, ServerFault> {
        let tip = self.job(|client| client.inner.block_headers_subscribe())?;
        u32::try_from(tip.height).ok().filter(|&height| height <= MAX_HEIGHT).ok_or(ServerFault::Misbehaved)
    }

    /// Forgets cached headers and proofs and remembers only `txs`, for after a reorganisation.
    fn forget(self, txs: Vec<Arc<Transaction>>) -> Self {
        let client = BdkElectrumClient::new(self.client.inner);
        client.populate_tx_cache(txs);
        Self { client, budget: self.budget }
    }
}

fn dial(url: &ServerUrl) -> Result<TcpStream, ServerFault> {
    let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(|_| ServerFault::UnknownHost)?;
    let mut fault = ServerFault::UnknownHost;
    for address in addresses.take(MAX_ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => return Ok(socket),
            Err(e) => fault = ServerFault::of_io(e),
        }
    }
    Err(fault)
}

fn handshake(
    url: &ServerUrl,
    pin: Option<Fingerprint>,
    socket: TimedSocket,
) -> Result<(StreamOwned<ClientConnection, TimedSocket>, Fingerprint), ServerFault> {
    let verifier = PinVerifier::new(pin);
    let config = verifier.client_config().map_err(|_| ServerFault::Tls)?;
    let name = ServerName::try_from(url.host.clone()).map_err(|_| ServerFault::UnknownHost)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|_| ServerFault::Tls)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        let result = stream.conn.complete_io(&mut stream.sock);
        match (result, pin, verifier.offered()) {
            (Ok(_), _, _) => {}
            (Err(_), Some(pinned), Some(offered)) if pinned != offered => {
                return Err(ServerFault::Certificate { pinned, offered });
            }
            (Err(e), _, _) if e.kind() == ErrorKind::TimedOut => return Err(ServerFault::Timeout),
            (Err(_), _, _) => return Err(ServerFault::Tls),
        }
    }
    let certificate = verifier.offered().ok_or(ServerFault::Tls)?;
    Ok((stream, certificate))
}

fn check_block(expected: BlockHash, header: &Header) -> Result<(), ServerFault> {
    let found = header.block_hash();
    if found == expected { Ok(()) } else { Err(ServerFault::OtherChain { expected, found }) }
}

/// The server's fee estimate, or `None` when it has none or an implausible one.
fn estimate(client: &Client, target: usize) -> Result<Option<FeeRate>, electrum_client::Error> {
    let btc_per_kvb = client.inner.estimate_fee(target, None)?;
    Ok(plausible_fee(btc_per_kvb))
}

fn plausible_fee(btc_per_kvb: f64) -> Option<FeeRate> {
    let sat_per_kvb = (btc_per_kvb * Amount::ONE_BTC.to_sat() as f64).round();
    PLAUSIBLE_FEE.contains(&sat_per_kvb).then(|| FeeRate::from_sat_per_kwu((sat_per_kvb as u64).div_ceil(4)))
}

/// What is wrong with a server, in our words: its own text is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    #[error("its name is not known: check the spelling, and that names resolve on this machine")]
    UnknownHost,
    #[error("it can't be reached ({0}): is it running, is the port right, is there a firewall?")]
    Unreachable(ErrorKind),
    #[error("it took too long to answer")]
    Timeout,
    #[error("it closed the connection")]
    Closed,
    #[error("it doesn't speak TLS as expected: tcp:// instead of ssl://?")]
    Tls,
    #[error(
        "its certificate changed: {pinned} was pinned, {offered} is shown. If its operator confirms the new one, tell the wallet to trust it"
    )]
    Certificate { pinned: Fingerprint, offered: Fingerprint },
    #[error("it serves another chain: expected block {expected}, found {found}")]
    OtherChain { expected: BlockHash, found: BlockHash },
    #[error("its chain has no block but the first: mine one")]
    EmptyChain,
    #[error("it is {blocks} blocks behind")]
    Behind { blocks: u32 },
    #[error("it took a payment and doesn't list it")]
    Omits,
    #[error("it refused a request")]
    Refused,
    #[error("it broke the protocol, or the bounds set to it")]
    Misbehaved,
}

impl ServerFault {
    fn of(error: electrum_client::Error) -> Self {
        use electrum_client::Error as E;
        match error {
            E::IOError(e) => Self::of_io(e),
            E::SharedIOError(e) => Self::of_io(e.kind().into()),
            E::Protocol(_) => Self::Refused,
            _ => Self::Misbehaved,
        }
    }

    fn of_io(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::InvalidData => Self::Misbehaved,
            ErrorKind::UnexpectedEof
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected => Self::Closed,
            kind => Self::Unreachable(kind),
        }
    }
}
