//! What an address tells: where it leads, how far it is believed, which subnet it shares with others.

use std::net::{IpAddr, Ipv4Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Addresses kept of one peer; what honest nodes have (IPv4 and IPv6, TCP and QUIC, local and public) fits.
pub(crate) const MAX_ADDRS_PER_PEER: usize = 8;

/// An address that this node can't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Names are not resolved: there is no resolver to trust yet.
    #[error("{0}: names are not resolved, give an IP address (/ip4/… or /ip6/…)")]
    Dns(Multiaddr),
    /// Neither `/ip…/tcp/…` nor `/ip…/udp/…/quic-v1`.
    #[error("{0}: only /ip4|ip6/…/tcp/… and /ip4|ip6/…/udp/…/quic-v1 are spoken")]
    Unsupported(Multiaddr),
    /// A peer to dial needs its id, or anybody at that address could answer.
    #[error("{0}: the peer id is missing (…/p2p/12D3Koo…)")]
    NoPeer(Multiaddr),
}

/// How far an address reaches; ordered from near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Loopback,
    Local,
    Global,
}

impl Scope {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => Self::Local,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Local,
            IpAddr::V4(_) | IpAddr::V6(_) => Self::Global,
        }
    }

    /// Machines of one's own network share addresses by nature: limits against strangers don't count them.
    pub(crate) fn is_near(self) -> bool {
        self < Self::Global
    }
}

/// The part of an address that one customer of a provider typically holds: an IPv4 /24 or an IPv6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subnet {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Subnet {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// The IP address that leads `addr`, if it starts with one.
pub(crate) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// How far `addr` reaches; an address without an IP is taken for a stranger's.
pub(crate) fn scope(addr: &Multiaddr) -> Scope {
    ip(addr).map_or(Scope::Global, Scope::of)
}

/// Whether `addr` is TCP, which moves bulk for half of QUIC's processor time.
pub(crate) fn is_tcp(addr: &Multiaddr) -> bool {
    addr.iter().nth(1).is_some_and(|part| matches!(part, Protocol::Tcp(_)))
}

/// Checks that a transport of ours speaks `addr`.
///
/// # Errors
/// [`AddressError::Dns`] for a name, [`AddressError::Unsupported`] for any other shape.
pub(crate) fn check(addr: &Multiaddr) -> Result<(), AddressError> {
    let mut parts = addr.iter();
    let (host, port, third, fourth) = (parts.next(), parts.next(), parts.next(), parts.next());
    match host {
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            return Err(AddressError::Dns(addr.clone()));
        }
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {}
        _ => return Err(AddressError::Unsupported(addr.clone())),
    }
    match (port, third, fourth, parts.next()) {
        (Some(Protocol::Tcp(_)), None | Some(Protocol::P2p(_)), None, None)
        | (Some(Protocol::Udp(_)), Some(Protocol::QuicV1), None | Some(Protocol::P2p(_)), None) => Ok(()),
        _ => Err(AddressError::Unsupported(addr.clone())),
    }
}

/// Parts `addr` into the peer it names and the address without it.
///
/// # Errors
/// As [`check`], and [`AddressError::NoPeer`] without `/p2p/…` at the end.
pub(crate) fn with_peer(addr: &Multiaddr) -> Result<(PeerId, Multiaddr), AddressError> {
    check(addr)?;
    let mut bare = addr.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => Ok((peer, bare)),
        _ => Err(AddressError::NoPeer(addr.clone())),
    }
}

/// What is believed of the addresses that a peer met at `met` claims: no nearer than it was met, dialable, at most
/// [`MAX_ADDRS_PER_PEER`], without the peer id.
///
/// WHY: otherwise a stranger could point all who ask for it at services inside their own networks.
pub(crate) fn believed(claimed: impl IntoIterator<Item = Multiaddr>, met: Scope) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for mut addr in claimed {
        if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
            addr.pop();
        }
        if is_target(&addr) && scope(&addr) >= met && !kept.contains(&addr) {
            kept.push(addr);
        }
        if kept.len() == MAX_ADDRS_PER_PEER {
            break;
        }
    }
    kept
}

/// What may be dialled of the addresses that a stranger's message names: public ones, also `near` ones where all nodes
/// are on one machine or in one house.
///
/// For what comes by gossip, of which nobody knows from how far; [`NetHandle`](crate::NetHandle) trusts what it is told.
#[must_use]
pub fn of_stranger(claimed: impl IntoIterator<Item = Multiaddr>, near: bool) -> Vec<Multiaddr> {
    believed(claimed, if near { Scope::Loopback } else { Scope::Global })
}

/// Drops QUIC addresses of a near machine that also offers TCP there: dialled together, the race between the two is
/// arbitrary, and near by TCP moves twice as much per core.
pub(crate) fn prefer_tcp_near(addrs: &mut Vec<Multiaddr>) {
    let near_tcp: Vec<IpAddr> =
        addrs.iter().filter(|addr| is_tcp(addr) && scope(addr).is_near()).filter_map(ip).collect();
    addrs.retain(|addr| is_tcp(addr) || ip(addr).is_none_or(|ip| !near_tcp.contains(&ip)));
}

/// Whether a connection to `addr` can lead to one machine.
fn is_target(addr: &Multiaddr) -> bool {
    let one_host = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    check(addr).is_ok() && ip(addr).is_some_and(one_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_foreign_transports_are_refused_with_the_reason() {
        assert!(matches!(check(&addr("/dns4/example.org/tcp/1")), Err(AddressError::Dns(_))));
        assert!(matches!(check(&addr("/ip4/1.2.3.4/udp/1")), Err(AddressError::Unsupported(_))));
        assert!(matches!(check(&addr("/ip4/1.2.3.4/tcp/1/ws")), Err(AddressError::Unsupported(_))));
        assert!(check(&addr("/ip6/::1/udp/1/quic-v1")).is_ok());
        assert!(matches!(with_peer(&addr("/ip4/1.2.3.4/tcp/1")), Err(AddressError::NoPeer(_))));
    }

    #[test]
    fn nobody_is_believed_to_be_nearer_than_we_met_them() {
        let claimed = || {
            ["/ip4/127.0.0.1/tcp/22", "/ip4/192.168.1.1/tcp/80", "/ip4/9.9.9.9/tcp/1", "/ip4/0.0.0.0/tcp/1"].map(addr)
        };
        assert_eq!(believed(claimed(), Scope::Loopback).len(), 3);
        assert_eq!(believed(claimed(), Scope::Local).len(), 2);
        assert_eq!(believed(claimed(), Scope::Global), [addr("/ip4/9.9.9.9/tcp/1")]);
        assert_eq!([of_stranger(claimed(), true).len(), of_stranger(claimed(), false).len()], [3, 1]);
    }

    #[test]
    fn claims_are_capped_and_told_once() {
        let many = (1..50).map(|port| addr(&format!("/ip4/9.9.9.9/tcp/{port}")));
        assert_eq!(believed(many, Scope::Global).len(), MAX_ADDRS_PER_PEER);
        let twice = vec![addr("/ip4/9.9.9.9/tcp/1"); 3];
        assert_eq!(believed(twice, Scope::Global).len(), 1);
    }

    #[test]
    fn a_mapped_address_belongs_to_the_subnet_of_its_ipv4() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(Subnet::of(mapped), Subnet::V4([10, 1, 2]));
        assert_eq!(Scope::of(mapped), Scope::Local);
    }

    #[test]
    fn near_quic_gives_way_to_tcp() {
        let mut addrs =
            ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", "/ip4/9.9.9.9/udp/1/quic-v1"].map(addr).to_vec();
        prefer_tcp_near(&mut addrs);
        assert_eq!(addrs, ["/ip4/127.0.0.1/tcp/1", "/ip4/9.9.9.9/udp/1/quic-v1"].map(addr));
    }
}
