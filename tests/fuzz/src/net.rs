//! What strangers put into the network's tables: provider records, and who they say they are.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;
use std::time::Duration;

use libp2p_identity::{Keypair, PeerId};
use multiaddr::Multiaddr;
use pedlar_net::fuzzing::{RecordBox, identified};
use pedlar_net::{Limits, of_stranger};

const KEYS: u8 = 8;
const PEERS: u8 = 16;
/// Bounds that a few operations reach.
const LIMITS: [usize; 3] = [40, 4, 8];
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Sequences of announcements, expiry and removal: the bounds hold, whoever is admitted is told, one is refused only at
/// a bound, and this node's own keys are told first whatever others do.
pub fn records(data: &[u8]) {
    let peers = peers();
    let [records, records_per_peer, records_per_subnet] = LIMITS;
    let limits = Limits { records, records_per_peer, records_per_subnet, ..Limits::default() };
    let mut random = 0_u64;
    let next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 33
    };
    let mut held = RecordBox::new(peers[0], limits, next);
    let mut own = [false; KEYS as usize];
    for op in data.chunks_exact(3) {
        let &[what, which, who] = op else { return };
        let (key, peer, subnet) = ([which % KEYS; 32], peers[1 + usize::from(who % PEERS)], who % PEERS / 4);
        let of_peer = |held: &RecordBox, peer| all(held, peers[0]).filter(|(_, told)| *told == peer).count();
        match what % 8 {
            0 => held.pass(LIFE / 4),
            1 => held.remove(&key, &peer),
            2 => {
                assert!(held.add_own(&key));
                own[usize::from(which % KEYS)] = true;
            }
            3 => assert!(!held.admit(&key[..usize::from(who) % 32], peer, None), "it is no key"),
            _ => {
                let (told_before, had) = (held.told(&key).contains(&peer), of_peer(&held, peer));
                let in_subnet: usize =
                    (0..PEERS).filter(|n| n / 4 == subnet).map(|n| of_peer(&held, peers[1 + usize::from(n)])).sum();
                let admitted = held.admit(&key, peer, Some(IpAddr::V4(Ipv4Addr::new(9, 9, subnet, who))));
                let full = had >= records_per_peer || in_subnet >= records_per_subnet;
                assert_eq!(admitted, told_before || !full);
                assert_eq!(held.told(&key).contains(&peer), admitted);
            }
        }
        let listed: Vec<_> = all(&held, peers[0]).collect();
        assert!(listed.len() == held.held() && listed.len() <= records);
        for (key, own) in (0..KEYS).zip(own) {
            assert_eq!(held.told(&[key; 32]).first() == Some(&peers[0]), own);
        }
    }
}

/// Every record held for others: fewer peers than are told at once.
fn all(held: &RecordBox, local: PeerId) -> impl Iterator<Item = (u8, PeerId)> {
    (0..KEYS)
        .flat_map(move |key| held.told(&[key; 32]).into_iter().map(move |peer| (key, peer)))
        .filter(move |(_, peer)| *peer != local)
}

fn peers() -> &'static [PeerId] {
    static PEER_IDS: OnceLock<Vec<PeerId>> = OnceLock::new();
    PEER_IDS.get_or_init(|| {
        let key = |n| Keypair::ed25519_from_bytes([n + 1; 32]).expect("32 bytes are a key");
        (0..=PEERS).map(|n| key(n).public().to_peer_id()).collect()
    })
}

/// What a peer says of itself: bounded, and no nearer than it was met.
pub fn identity(data: &[u8]) {
    static KEY: OnceLock<Keypair> = OnceLock::new();
    let key = KEY.get_or_init(|| Keypair::ed25519_from_bytes([1; 32]).expect("a key")).public();
    let Some((&[split, from], data)) = data.split_first_chunk::<2>() else { return };
    let (agent, said) = data.split_at(usize::from(split) * data.len() / 256);
    let agent = String::from_utf8_lossy(agent).into_owned();
    let text = String::from_utf8_lossy(said);
    let typed = text.split_whitespace().filter_map(|addr| addr.parse().ok());
    // Six bytes are an address of IPv4 and TCP.
    let packed = said.chunks_exact(6).map(|part| {
        let (ip, port) = (Ipv4Addr::new(part[0], part[1], part[2], part[3]), u16::from_be_bytes([part[4], part[5]]));
        format!("/ip4/{ip}/tcp/{port}").parse().expect("an address")
    });
    let claimed: Vec<Multiaddr> = typed.chain(packed).collect();
    let remote =
        ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip4/9.9.9.9/tcp/1", "/memory/1"][usize::from(from % 4)];
    let is_far = from % 4 >= 2;
    let info =
        identified(key, remote.parse().expect("an address"), from & 4 == 0, agent.clone(), claimed.clone(), vec![]);
    let info = info.expect("it is connected");
    assert!(info.addrs.len() <= 8 && info.agent.chars().count() <= 64 && agent.starts_with(&info.agent));
    if is_far {
        let far = of_stranger(info.addrs.clone(), false);
        assert_eq!(far, info.addrs, "met at {remote}");
    }
}
