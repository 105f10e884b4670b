//! Which strangers count as neighbours.

use std::net::IpAddr;

use multiaddr::Multiaddr;

/// What the places of strangers are shared out by: the smallest block of addresses that is cheap to get as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subnet {
    /// Loopback and private addresses: a network at home or at work, or a devnet.
    Local,
    /// An IPv4 /24.
    V4([u8; 3]),
    /// An IPv6 /48.
    V6([u16; 3]),
    /// No address of these kinds.
    Unknown,
}

impl Subnet {
    /// The subnet that a seller counts against: that of its first public address, else whatever its others are.
    ///
    /// The addresses are the seller's claim. Who claims those of others, or private ones, gains little: it joins a crowd,
    /// and the most crowded subnet loses places first.
    pub(super) fn of(addresses: &[Multiaddr]) -> Self {
        let subnets = || addresses.iter().filter_map(Multiaddr::ip_addr).map(Self::of_ip);
        subnets().find(|subnet| *subnet != Self::Local).or_else(|| subnets().next()).unwrap_or(Self::Unknown)
    }

    /// Whether its strangers have few places; those in one's own network are as many as they are.
    pub(super) fn is_limited(self) -> bool {
        self != Self::Local
    }

    fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => Self::Local,
            IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => Self::Local,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(addresses: &[&str]) -> Subnet {
        Subnet::of(&addresses.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn the_first_public_address_counts() {
        assert_eq!(subnet(&["/ip4/10.0.0.1/tcp/1", "/ip4/198.51.100.7/tcp/1"]), Subnet::V4([198, 51, 100]));
        assert_eq!(subnet(&["/ip6/2001:db8:1:2::3/udp/1/quic-v1"]), Subnet::V6([0x2001, 0xdb8, 1]));
        assert_eq!(subnet(&["/ip6/::ffff:198.51.100.7/tcp/1"]), Subnet::V4([198, 51, 100]));
        for local in ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/fd00::1/tcp/1"] {
            assert_eq!(subnet(&[local]), Subnet::Local);
        }
        assert_eq!(subnet(&[]), Subnet::Unknown);
        assert_eq!(subnet(&["/dns/example.org/tcp/1"]), Subnet::Unknown);
    }
}
