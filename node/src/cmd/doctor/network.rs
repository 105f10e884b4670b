//! What is looked at beyond this machine: who can reach it, and what the Electrum servers say.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use multiaddr::Protocol;
use pedlar_net::Multiaddr;
use pedlar_protocol::time::{MAX_BLOCK_AHEAD, Skew, Timestamp, skew};
use pedlar_wallet::{Network, Seen, ServerFault, ServerUrl};

use super::Health;
use super::patient::Patient;
use crate::cmd::advice::{self, Reach, Reachable};
use crate::config::Config;

/// Whether the node listens where it was told to, or could.
pub(super) fn listen(patient: &Patient) -> Vec<Health> {
    let Some(config) = &patient.settings else { return Vec::new() };
    let elsewhere = "is the port taken? Choose another one: `listen` in config.toml, or pedlar up --listen ADDR";
    vec![match &patient.running {
        Some(vitals) => match vitals.wanted.iter().find(|wanted| !vitals.listen.iter().any(|is| covers(wanted, is))) {
            Some(missing) => Health::ill(format!("nothing listens on {missing}"), elsewhere),
            None => Health::well(format!("listens on {}", list(&vitals.listen))),
        },
        None => match config.listen.iter().find_map(|wanted| Some((wanted, is_taken(wanted)?))) {
            Some((taken, error)) => Health::ill(format!("{taken} can't be listened on: {error}"), elsewhere),
            None => Health::well(format!("{} can be listened on", list(&config.listen))),
        },
    }]
}

/// Whether a running node has found others.
pub(super) fn peers(patient: &Patient) -> Vec<Health> {
    let Some(vitals) = &patient.running else { return Vec::new() };
    vec![match vitals.peers {
        0 => Health::ill(
            "nobody is connected",
            "name a node that is up: `bootstrap` in config.toml, or pedlar up --bootstrap ADDR",
        ),
        peers => Health::well(format!("{peers} are connected, {} of them dialled this node", vitals.inbound)),
    }]
}

/// Whether buyers can reach a running node that sells.
pub(super) fn reachable(patient: &Patient) -> Vec<Health> {
    let Some((vitals, config)) = patient.running.as_ref().zip(patient.settings.as_ref()) else { return Vec::new() };
    let Reach { is, found, hint } = advice::reach(&vitals.listen, config, vitals.inbound);
    vec![if !vitals.sells {
        Health::well("nothing is sold: nobody has to reach this node")
    } else if let (Reachable::No, Some(hint)) = (is, hint) {
        Health::ill(found, hint)
    } else {
        Health::well(found)
    }]
}

/// Whether each Electrum server can be reached, is who it was, and serves the newest block.
pub(super) fn electrum(patient: &Patient) -> Vec<Health> {
    match &patient.settings {
        Some(config) if config.electrum.is_empty() => vec![Health::ill(
            "no Electrum server is configured",
            "name one that you trust: electrum = [\"ssl://HOST:PORT\"] in config.toml",
        )],
        Some(_) => patient.servers().iter().map(judge_server).collect(),
        None => Vec::new(),
    }
}

/// Whether the clock agrees with the newest block.
pub(super) fn clock(patient: &Patient) -> Vec<Health> {
    let seen = patient.servers().iter().filter_map(|(_, seen)| seen.as_ref().ok());
    let newest = seen.max_by_key(|seen| seen.tip_height);
    let Some((newest, config)) = newest.zip(patient.settings.as_ref()) else { return Vec::new() };
    vec![judge_clock(patient.now, newest, config)]
}

fn judge_server((url, seen): &(ServerUrl, Result<Seen, ServerFault>)) -> Health {
    let fault = match seen {
        Ok(Seen { tip_height, certificate: None, .. }) => {
            return Health::well(format!("{url} is at block {tip_height}"));
        }
        Ok(Seen { tip_height, certificate: Some(shown), .. }) => {
            return Health::well(format!("{url} is at block {tip_height}, its certificate is {shown}"));
        }
        Err(fault) => fault,
    };
    Health::ill(format!("{url}: {fault}"), advice::server(url, fault))
}

fn judge_clock(now: Timestamp, newest: &Seen, config: &Config) -> Health {
    let block = Timestamp::from_ms(u64::from(newest.tip_time_s).saturating_mul(1_000));
    let paced = config.network == Network::Signet;
    let set_it = "set the clock, best for good: timedatectl set-ntp true";
    match skew(now, block, paced) {
        None => Health::well(format!("{now} fits block {}, of {block}", newest.tip_height)),
        Some(Skew::Late(by)) => Health::ill(
            format!(
                "it is {now} here, and block {} is of {block}: more than {} h later, so this clock is at least {} min late",
                newest.tip_height,
                MAX_BLOCK_AHEAD.as_secs() / 3_600,
                by.as_secs().div_ceil(60),
            ),
            set_it,
        ),
        Some(Skew::Ahead(by)) => Health::ill(
            format!(
                "it is {now} here, and the newest block is {} h old: this clock is ahead, or its servers have stood still",
                by.as_secs() / 3_600,
            ),
            set_it,
        ),
    }
}

/// Whether one listening address is what another one asked for.
fn covers(wanted: &Multiaddr, is: &Multiaddr) -> bool {
    match (socket(wanted), socket(is)) {
        (Some((ip, port, udp)), Some((is_ip, is_port, is_udp))) => {
            (ip == is_ip || ip.is_unspecified()) && (port == is_port || port == 0) && udp == is_udp
        }
        // What is no plain socket is not ours to judge.
        (None, _) => true,
        (Some(_), None) => false,
    }
}

/// Why an address can't be listened on; nothing where it can, or nobody can tell.
fn is_taken(addr: &Multiaddr) -> Option<std::io::Error> {
    let (ip, port, udp) = socket(addr)?;
    let at = SocketAddr::new(ip, port);
    match udp {
        true => UdpSocket::bind(at).map(drop).err(),
        false => TcpListener::bind(at).map(drop).err(),
    }
}

/// The IP address and port of an address, and whether it is UDP.
fn socket(addr: &Multiaddr) -> Option<(IpAddr, u16, bool)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port, false)),
        Protocol::Udp(port) => Some((ip, port, true)),
        _ => None,
    }
}

fn list(addrs: &[Multiaddr]) -> String {
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_asked_for_is_recognised() {
        let tcp = addr("/ip4/10.0.0.5/tcp/4001");
        for wanted in ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/tcp/4001", "/ip4/10.0.0.5/tcp/0", "/ip4/10.0.0.5/tcp/4001"] {
            assert!(covers(&addr(wanted), &tcp), "{wanted}");
        }
        for wanted in ["/ip4/10.0.0.6/tcp/4001", "/ip4/10.0.0.5/tcp/4002", "/ip4/0.0.0.0/udp/4001/quic-v1"] {
            assert!(!covers(&addr(wanted), &tcp), "{wanted}");
        }
    }

    #[test]
    fn a_taken_port_is_seen_and_a_free_one_is_left_free() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = addr(&format!("/ip4/127.0.0.1/tcp/{}", held.local_addr().unwrap().port()));
        assert!(is_taken(&taken).is_some());
        drop(held);
        assert!(is_taken(&taken).is_none() && is_taken(&taken).is_none());
    }
}
