use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bitcoin::consensus::encode::serialize_hex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::*;

/// A server that answers each method with a fixed result, in clear or over TLS.
struct Scripted {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

type Script = fn(&str) -> Option<String>;

impl Scripted {
    fn start(tls: Option<Arc<ServerConfig>>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                match &tls {
                    None => serve(socket, script, &counter),
                    Some(config) => {
                        let connection = ServerConnection::new(config.clone()).unwrap();
                        serve(StreamOwned::new(connection, socket), script, &counter);
                    }
                }
            }
        });
        Self { address, requests }
    }

    fn connect(&self, scheme: &str, expected: &Expected) -> Result<(Server, Greeting), ServerFault> {
        Server::connect(&format!("{scheme}://{}", self.address).parse().unwrap(), expected, drop)
    }
}

fn serve(stream: impl Read + Write, script: Script, requests: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while matches!(stream.read_line(&mut line), Ok(1..)) {
        requests.fetch_add(1, Ordering::SeqCst);
        let Some((_, id)) = line.split_once("\"id\":") else { return };
        let id: String = id.chars().take_while(char::is_ascii_digit).collect();
        let answer = match script(&line) {
            Some(result) => format!("{{\"id\":{id},\"result\":{result}}}\n"),
            None => format!("{{\"id\":{id},\"error\":\"<b>call +1 555 now</b>\"}}\n"),
        };
        if stream.get_mut().write_all(answer.as_bytes()).and_then(|()| stream.get_mut().flush()).is_err() {
            return;
        }
        line.clear();
    }
}

fn genesis() -> bitcoin::Block {
    bitcoin::constants::genesis_block(bitcoin::Network::Regtest)
}

/// What a server of a regtest chain says; its block 1 is the genesis block again, nobody checks here.
fn honest(request: &str) -> Option<String> {
    if request.contains("server.version") {
        return Some("[\"scripted\",\"1.4\"]".into());
    }
    request.contains("block.header\"").then(|| format!("\"{}\"", serialize_hex(&genesis().header)))
}

fn expected() -> Expected {
    Expected { genesis: genesis().block_hash(), block_1: None, pin: None }
}

fn certificate() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert)], key)
        .unwrap();
    Arc::new(config)
}

#[test]
fn a_certificate_is_pinned_and_another_one_gets_no_byte() {
    let (first, second) = (certificate(), certificate());
    let server = Scripted::start(Some(first), honest);
    let (_, greeting) = server.connect("ssl", &expected()).unwrap();
    let pin = greeting.certificate;
    assert!(pin.is_some());
    server.connect("ssl", &Expected { pin, ..expected() }).unwrap();

    let impostor = Scripted::start(Some(second), honest);
    let fault = impostor.connect("ssl", &Expected { pin, ..expected() }).err().unwrap();
    let ServerFault::Certificate { pinned, offered } = fault else { panic!("{fault}") };
    assert!(Some(pinned) == pin && offered != pinned);
    assert_eq!(impostor.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn the_wrong_scheme_or_chain_or_no_server_is_named() {
    let server = Scripted::start(None, honest);
    server.connect("tcp", &expected()).unwrap();
    assert_eq!(server.connect("ssl", &expected()).err(), Some(ServerFault::Tls));
    let other = BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
    for expected in [Expected { genesis: other, ..expected() }, Expected { block_1: Some(other), ..expected() }] {
        let found = genesis().block_hash();
        assert_eq!(server.connect("tcp", &expected).err(), Some(ServerFault::OtherChain { expected: other, found }));
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Scripted { address: free, requests: Arc::default() };
    let refused = ServerFault::Unreachable(ErrorKind::ConnectionRefused);
    assert_eq!(nobody.connect("tcp", &expected()).err(), Some(refused));
}

#[test]
fn lies_that_make_the_libraries_panic_end_only_the_connection() {
    let server = Scripted::start(None, |request| match request.contains("block.headers") {
        true => Some("{\"count\":9,\"hex\":\"00\",\"max\":9}".into()),
        false => honest(request),
    });
    let (server, _) = server.connect("tcp", &expected()).unwrap();
    let fault = server.job(|client| client.inner.block_headers(0, 9)).unwrap_err();
    assert_eq!(fault, ServerFault::Misbehaved);
}

#[test]
fn a_servers_words_are_not_repeated() {
    let server = Scripted::start(None, |request| honest(request).filter(|_| !request.contains("estimatefee")));
    let (server, _) = server.connect("tcp", &expected()).unwrap();
    let fault = server.job(|client| estimate(client, FEE_TARGET)).unwrap_err();
    assert_eq!(fault, ServerFault::Refused);
    assert!(!fault.to_string().contains("555"));
}

#[test]
fn only_plausible_fees_are_believed() {
    assert_eq!(plausible_fee(0.00001), Some(FeeRate::from_sat_per_vb_u32(1)));
    assert_eq!(plausible_fee(0.00012345), Some(FeeRate::from_sat_per_kwu(3_087)));
    for lie in [-1.0, 0.0, 0.2, 21e6, f64::INFINITY, f64::NAN] {
        assert_eq!(plausible_fee(lie), None, "{lie}");
    }
}
