//! What a person types, or a program on the same machine says: addresses, links to pay, servers, words, requests.

use bitcoin::{Address, Amount, KnownHrp, WitnessProgram, WitnessVersion};
use pedlar_node::fuzzing;
use pedlar_wallet::{Fingerprint, Network, ServerUrl, Words, bip21};

use crate::reads_what_it_prints;

/// Texts of the wallet: what is understood is printed in a form that is understood alike, an address belongs to one of
/// our networks, and nothing that a person wrote leaves its place in a link to pay.
pub fn typed(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    reads_what_it_prints::<ServerUrl>(&text);
    reads_what_it_prints::<ServerUrl>(&format!("ssl://{text}"));
    reads_what_it_prints::<Fingerprint>(&text);
    if let Ok(words) = Words::parse(&text) {
        let again = Words::parse(&words.phrase()).expect("the same words");
        assert_eq!(*again.phrase(), *words.phrase());
    }
    for network in [Network::Regtest, Network::Signet] {
        if let Ok(address) = network.parse_address(&text) {
            link_to_pay(network, &address, data);
        }
    }
    // An address of these bytes: no random text has its checksum.
    let Some((version, program)) = data.split_first() else { return };
    let program = program.get(..program.len().min(40)).unwrap_or_default();
    let program =
        WitnessVersion::try_from(version % 17).ok().and_then(|version| WitnessProgram::new(version, program).ok());
    if let Some(program) = program {
        let address = Address::from_witness_program(program, KnownHrp::Regtest);
        assert_eq!(Network::Regtest.parse_address(&address.to_string()).as_ref(), Ok(&address));
        Network::Signet.parse_address(&address.to_string()).expect_err("it is no address there");
        link_to_pay(Network::Regtest, &address, data);
    }
}

fn link_to_pay(network: Network, address: &Address, data: &[u8]) {
    let (label, message) = data.split_at(data.len() / 2);
    let (label, message) = (String::from_utf8_lossy(label), String::from_utf8_lossy(message));
    let sat = data.iter().fold(0_u64, |sat, byte| sat.wrapping_mul(257).wrapping_add((*byte).into()));
    let amount = Amount::from_sat(sat % Amount::MAX_MONEY.to_sat());
    let link = bip21(address, Some(amount), Some(&label), Some(&message));
    assert!(link.chars().all(|letter| letter.is_ascii_graphic()), "{link}");
    let (to, query) = link.strip_prefix("bitcoin:").and_then(|link| link.split_once('?')).expect("a link to pay");
    assert_eq!(network.parse_address(to).as_ref(), Ok(address));
    let fields: Vec<(&str, String)> =
        query.split('&').filter_map(|field| field.split_once('=')).map(|(name, value)| (name, decode(value))).collect();
    let btc = Amount::from_str_in(&fields[0].1, bitcoin::Denomination::Bitcoin);
    assert_eq!((fields[0].0, btc), ("amount", Ok(amount)));
    assert_eq!(fields[1..], [("label", label.into_owned()), ("message", message.into_owned())]);
}

/// Percent-encoding, undone.
fn decode(value: &str) -> String {
    let mut bytes = value.bytes();
    let hex = |bytes: &mut std::str::Bytes<'_>| {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).expect("a hex digit") as u8;
        digit(bytes.next()) << 4 | digit(bytes.next())
    };
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(&mut bytes) } else { byte });
    }
    String::from_utf8(decoded).expect("text")
}

/// Requests on the local socket: what is understood is written in a form that is understood alike. The bytes as they are,
/// and as what follows the name of each verb.
pub fn request(data: &[u8]) {
    const VERBS: [&str; 12] = [
        "down",
        "status",
        "peers",
        "market",
        "publish",
        "unpublish",
        "published",
        "sell",
        "get",
        "wallet",
        "account",
        "config",
    ];
    let first = data.first().map_or(0, |byte| usize::from(*byte) % VERBS.len());
    let behind_a_verb =
        [format!("{{\"verb\":\"{}\",", VERBS[first]).as_bytes(), data.get(1..).unwrap_or_default()].concat();
    for line in [data, &behind_a_verb] {
        if let Some(written) = fuzzing::request(line) {
            assert_eq!(fuzzing::request(written.as_bytes()), Some(written));
        }
    }
}
