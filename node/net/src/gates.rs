//! The gate in front of every inbound connection: how many and how fast, by IP address and by subnet.
//!
//! libp2p counts connections, never whose they are; peer ids are free, addresses are not.

use std::{
    collections::HashMap,
    convert::Infallible,
    hash::Hash,
    net::IpAddr,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

use crate::{
    Limits,
    addresses::{Scope, Subnet, ip},
};

/// Handshakes that may come at once from one subnet, in seconds of its average rate.
const BURST_SECONDS: f64 = 10.0;
/// Subnets whose rate is remembered; beyond it all start afresh, the counts still hold.
const MAX_RATES: usize = 4096;

/// Why a connection was denied at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("too many connections from {0}")]
    Ip(IpAddr),
    #[error("too many connections from the subnet of {0}")]
    Subnet(IpAddr),
    #[error("too many handshakes from the subnet of {0}")]
    Rate(IpAddr),
}

/// How many of each there are; what falls to zero is forgotten.
#[derive(Debug)]
pub(crate) struct Tally<K>(HashMap<K, usize>);

impl<K: Eq + Hash> Tally<K> {
    pub(crate) fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, key: K) {
        *self.0.entry(key).or_insert(0) += 1;
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// Counts the inbound connections of each address; near ones (loopback, LAN) pass uncounted.
pub(crate) struct Gate {
    limits: Limits,
    open: HashMap<ConnectionId, IpAddr>,
    by_ip: Tally<IpAddr>,
    by_subnet: Tally<Subnet>,
    rates: HashMap<Subnet, Rate>,
}

/// A token bucket: `tokens` at the instant `at`.
struct Rate {
    tokens: f64,
    at: Instant,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            by_ip: Tally::default(),
            by_subnet: Tally::default(),
            rates: HashMap::new(),
        }
    }

    /// Lets a connection in and counts it until [`Self::leave`].
    fn enter(&mut self, id: ConnectionId, ip: IpAddr, now: Instant) -> Result<(), Denied> {
        let ip = ip.to_canonical();
        if Scope::of(ip).is_near() {
            return Ok(());
        }
        let subnet = Subnet::of(ip);
        if self.by_ip.of(&ip) >= self.limits.connections_per_ip {
            return Err(Denied::Ip(ip));
        }
        if self.by_subnet.of(&subnet) >= self.limits.connections_per_subnet {
            return Err(Denied::Subnet(ip));
        }
        if !self.spend_token(subnet, now) {
            return Err(Denied::Rate(ip));
        }
        self.by_ip.add(ip);
        self.by_subnet.add(subnet);
        self.open.insert(id, ip);
        Ok(())
    }

    fn leave(&mut self, id: ConnectionId) {
        if let Some(ip) = self.open.remove(&id) {
            self.by_ip.remove(&ip);
            self.by_subnet.remove(&Subnet::of(ip));
        }
    }

    fn spend_token(&mut self, subnet: Subnet, now: Instant) -> bool {
        let per_second = f64::from(self.limits.handshakes_per_second);
        if self.rates.len() >= MAX_RATES && !self.rates.contains_key(&subnet) {
            self.rates.clear();
        }
        let full = per_second * BURST_SECONDS;
        let rate = self.rates.entry(subnet).or_insert(Rate { tokens: full, at: now });
        let gained = now.saturating_duration_since(rate.at).as_secs_f64() * per_second;
        rate.tokens = (rate.tokens + gained).min(full);
        rate.at = now;
        if rate.tokens < 1.0 {
            return false;
        }
        rate.tokens -= 1.0;
        true
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match ip(remote) {
            Some(ip) => self.enter(id, ip, Instant::now()).map_err(ConnectionDenied::new),
            None => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.leave(closed.connection_id),
            FromSwarm::ListenFailure(failed) => self.leave(failed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate() -> Gate {
        Gate::new(Limits {
            connections_per_ip: 2,
            connections_per_subnet: 3,
            handshakes_per_second: 1,
            ..Limits::default()
        })
    }

    fn enter(gate: &mut Gate, id: usize, ip: &str, now: Instant) -> Result<(), Denied> {
        gate.enter(ConnectionId::new_unchecked(id), ip.parse().unwrap(), now)
    }

    #[test]
    fn an_address_and_its_subnet_are_counted_until_they_leave() {
        let (mut gate, now) = (gate(), Instant::now());
        assert_eq!(enter(&mut gate, 1, "9.9.9.1", now), Ok(()));
        assert_eq!(enter(&mut gate, 2, "9.9.9.1", now), Ok(()));
        assert!(matches!(enter(&mut gate, 3, "::ffff:9.9.9.1", now), Err(Denied::Ip(_))));
        assert_eq!(enter(&mut gate, 4, "9.9.9.2", now), Ok(()));
        assert!(matches!(enter(&mut gate, 5, "9.9.9.3", now), Err(Denied::Subnet(_))));
        assert_eq!(enter(&mut gate, 6, "9.9.8.3", now), Ok(()));
        gate.leave(ConnectionId::new_unchecked(1));
        gate.leave(ConnectionId::new_unchecked(1));
        assert_eq!(enter(&mut gate, 7, "9.9.9.1", now), Ok(()));
        for id in [2, 4, 6, 7] {
            gate.leave(ConnectionId::new_unchecked(id));
        }
        assert!(gate.open.is_empty() && gate.by_ip.0.is_empty() && gate.by_subnet.0.is_empty());
    }

    #[test]
    fn a_subnet_that_hammers_waits_for_its_tokens() {
        let (mut gate, now) = (gate(), Instant::now());
        for id in 0..10 {
            assert_eq!(enter(&mut gate, id, "2001:db8::1", now), Ok(()));
            gate.leave(ConnectionId::new_unchecked(id));
        }
        assert!(matches!(enter(&mut gate, 11, "2001:db8::2", now), Err(Denied::Rate(_))));
        assert_eq!(enter(&mut gate, 12, "2001:db8::2", now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn near_machines_are_not_counted() {
        let (mut gate, now) = (gate(), Instant::now());
        for id in 0..100 {
            assert_eq!(enter(&mut gate, id, "127.0.0.1", now), Ok(()));
        }
        assert!(gate.open.is_empty());
    }
}
