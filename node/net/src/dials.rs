//! Dials that callers wait for, and the seeds that are dialled while there are few peers.
//!
//! A plain value: it says what to dial and whom to tell; the task owns the swarm that does it.

use std::{
    collections::{HashMap, VecDeque},
    error::Error,
    mem,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use crate::{
    OpenError,
    addresses::{is_tcp, prefer_tcp_near},
};

/// With fewer peers than this the seeds are dialled again and again.
const FEW_PEERS: usize = 20;
/// The pause between two rounds of seeds.
const RESEED: Duration = Duration::from_secs(30);
/// The same while there is no peer at all: nodes that start together wait for each other.
const RESEED_ALONE: Duration = Duration::from_secs(3);
/// Seeds dialled in one round.
const SEEDS_PER_ROUND: usize = 8;
/// Seeds kept.
const MAX_SEEDS: usize = 256;
/// Callers that may wait for one peer.
const MAX_WAITING: usize = 256;
/// Addresses of one peer that are tried for those who wait for it.
const MAX_TRIED: usize = 32;
/// Addresses whose failures are told to the caller.
const MAX_TOLD: usize = 3;

/// Who waits for a connection.
pub(crate) type Dialled = oneshot::Sender<Result<(), OpenError>>;

/// The dials that somebody waits for.
#[derive(Default)]
pub(crate) struct Dials {
    pending: HashMap<PeerId, Dial>,
}

/// One attempt, and the addresses that callers named meanwhile.
struct Dial {
    attempt: ConnectionId,
    tried: Vec<Multiaddr>,
    more: Vec<Multiaddr>,
    waiting: Vec<Dialled>,
}

impl Dials {
    /// Waits for a connection to `peer`; returns what to dial unless an attempt is under way.
    #[must_use]
    pub(crate) fn handle_dial(&mut self, peer: PeerId, addrs: Vec<Multiaddr>, reply: Dialled) -> Option<DialOpts> {
        match self.pending.get_mut(&peer) {
            Some(dial) if dial.waiting.len() >= MAX_WAITING => {
                let _ = reply.send(Err(OpenError::TooMany));
                None
            }
            Some(dial) => {
                dial.add(addrs);
                dial.waiting.push(reply);
                None
            }
            None => {
                let tried: Vec<Multiaddr> = addrs.into_iter().take(MAX_TRIED).collect();
                Some(self.begin(peer, dial_opts(peer, tried.clone()), tried, reply))
            }
        }
    }

    /// Waits for a further connection to a connected `peer`, at these addresses; returns what to dial.
    #[must_use]
    pub(crate) fn handle_tcp(&mut self, peer: PeerId, addrs: Vec<Multiaddr>, reply: Dialled) -> Option<DialOpts> {
        if self.pending.contains_key(&peer) {
            return self.handle_dial(peer, addrs, reply);
        }
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addrs.clone()).build();
        Some(self.begin(peer, opts, addrs, reply))
    }

    fn begin(&mut self, peer: PeerId, opts: DialOpts, tried: Vec<Multiaddr>, reply: Dialled) -> DialOpts {
        let dial = Dial { attempt: opts.connection_id(), tried, more: Vec::new(), waiting: vec![reply] };
        self.pending.insert(peer, dial);
        opts
    }

    pub(crate) fn handle_connected(&mut self, peer: &PeerId) {
        self.answer(peer, &Ok(()));
    }

    /// Notes that `attempt` failed; returns what to dial next, if callers named more addresses.
    #[must_use]
    pub(crate) fn handle_failed(
        &mut self,
        peer: &PeerId,
        attempt: ConnectionId,
        error: &DialError,
    ) -> Option<DialOpts> {
        let dial = self.pending.get_mut(peer).filter(|dial| dial.attempt == attempt)?;
        if dial.more.is_empty() {
            self.answer(peer, &Err(OpenError::Unreachable(reason(error))));
            return None;
        }
        let opts = dial_opts(*peer, mem::take(&mut dial.more));
        dial.attempt = opts.connection_id();
        Some(opts)
    }

    fn answer(&mut self, peer: &PeerId, outcome: &Result<(), OpenError>) {
        for reply in self.pending.remove(peer).into_iter().flat_map(|dial| dial.waiting) {
            // A caller that went away needs no answer.
            let _ = reply.send(outcome.clone());
        }
    }
}

impl Dial {
    /// Takes the addresses that were not tried yet for the next attempt.
    fn add(&mut self, addrs: Vec<Multiaddr>) {
        for addr in addrs {
            if self.tried.len() < MAX_TRIED && !self.tried.contains(&addr) {
                self.tried.push(addr.clone());
                self.more.push(addr);
            }
        }
    }
}

/// Peers that lead into the network, dialled in turn.
pub(crate) struct Seeds {
    turn: VecDeque<(PeerId, Multiaddr)>,
    next: Instant,
}

impl Seeds {
    /// `seeds` in the order in which they are first dialled; those beyond 256 are left out.
    pub(crate) fn new(seeds: impl IntoIterator<Item = (PeerId, Multiaddr)>, now: Instant) -> Self {
        Self { turn: seeds.into_iter().take(MAX_SEEDS).collect(), next: now }
    }

    /// The seeds to dial now, while there are few `peers`: each once, at all of its addresses that have their turn. One
    /// that is remembered may be out of date, and must not take the place of one that is not.
    #[must_use]
    pub(crate) fn poll_due(&mut self, peers: usize, now: Instant) -> Vec<DialOpts> {
        if peers >= FEW_PEERS || now < self.next {
            return Vec::new();
        }
        self.next = now + if peers == 0 { RESEED_ALONE } else { RESEED };
        let round = self.turn.len().min(SEEDS_PER_ROUND);
        self.turn.rotate_left(round);
        let mut dialled: Vec<_> = self.turn.iter().rev().take(round).collect();
        dialled.sort_by_key(|(_, addr)| !is_tcp(addr));
        let mut targets: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for (peer, addr) in dialled {
            match targets.iter_mut().find(|(known, _)| known == peer) {
                Some((_, addrs)) => addrs.push(addr.clone()),
                None => targets.push((*peer, vec![addr.clone()])),
            }
        }
        targets.into_iter().map(|(peer, addrs)| seed_opts(peer, addrs)).collect()
    }
}

fn dial_opts(peer: PeerId, mut addrs: Vec<Multiaddr>) -> DialOpts {
    prefer_tcp_near(&mut addrs);
    DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addrs).build()
}

fn seed_opts(peer: PeerId, mut addrs: Vec<Multiaddr>) -> DialOpts {
    prefer_tcp_near(&mut addrs);
    DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addrs).build()
}

/// The failure in one line, for people.
fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address of it is known".to_owned(),
        DialError::LocalPeerId { .. } => "it is this node itself".to_owned(),
        DialError::WrongPeerId { obtained, address } => format!("{address} is another peer, {obtained}"),
        DialError::Denied { cause } => format!("denied by this node: {cause}"),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => "the attempt was given up".to_owned(),
        DialError::Transport(failures) => {
            let told = failures.iter().take(MAX_TOLD).map(|(addr, error)| format!("{addr}: {}", cause(error)));
            let mut told: Vec<String> = told.collect();
            told.dedup();
            // Some errors quote the other side: nothing of it may steer a terminal.
            told.join("; ").replace(|c: char| c != ' ' && !c.is_ascii_graphic(), "?")
        }
    }
}

/// The innermost cause: the errors round it print nothing of their own.
fn cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/9.9.9.9/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn callers_share_an_attempt_and_their_new_addresses_are_tried_after_it() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        let attempt = dials.handle_dial(peer, vec![addr(1)], first).unwrap().connection_id();
        assert!(dials.handle_dial(peer, vec![addr(1), addr(2)], second).is_none());
        let next = dials.handle_failed(&peer, attempt, &DialError::NoAddresses).unwrap();
        assert!(dials.handle_failed(&peer, attempt, &DialError::NoAddresses).is_none(), "that attempt is over");
        assert!(first_answer.try_recv().is_err());
        assert!(dials.handle_failed(&peer, next.connection_id(), &DialError::NoAddresses).is_none());
        for answer in [&mut first_answer, &mut second_answer] {
            assert!(matches!(answer.try_recv(), Ok(Err(OpenError::Unreachable(_)))));
        }
        assert!(dials.pending.is_empty());
    }

    #[test]
    fn a_further_connection_over_tcp_answers_whatever_becomes_of_it() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        for connects in [true, false] {
            let (reply, mut answer) = oneshot::channel();
            let opts = dials.handle_tcp(peer, vec![addr(1)], reply).unwrap();
            if connects {
                dials.handle_connected(&peer);
            } else {
                assert!(dials.handle_failed(&peer, opts.connection_id(), &DialError::Aborted).is_none());
            }
            assert_eq!(answer.try_recv().unwrap().is_ok(), connects);
        }
        assert!(dials.pending.is_empty());
    }

    #[test]
    fn who_waits_is_bounded() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let mut answers: Vec<_> = (0..=MAX_WAITING)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                let _ = dials.handle_dial(peer, vec![addr(1)], reply);
                answer
            })
            .collect();
        assert_eq!(answers.pop().unwrap().try_recv(), Ok(Err(OpenError::TooMany)));
        dials.handle_connected(&peer);
        assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(Ok(()))));
    }

    #[test]
    fn a_seed_is_dialled_at_each_of_its_addresses_at_once() {
        let (now, peer, other) = (Instant::now(), PeerId::random(), PeerId::random());
        let seeds = [(peer, addr(1)), (other, addr(2)), (peer, addr(3))];
        let due = Seeds::new(seeds, now).poll_due(0, now);
        let addrs = |peer| due.iter().find(|opts| opts.get_peer_id() == Some(peer)).map(|opts| format!("{opts:?}"));
        assert_eq!(due.len(), 2, "{due:?}");
        let told = addrs(peer).unwrap();
        assert!([addr(1), addr(3)].iter().all(|addr| told.contains(&format!("{addr:?}"))), "{told}");
    }

    #[test]
    fn seeds_are_dialled_in_turn_while_there_are_few_peers() {
        let now = Instant::now();
        let peers: Vec<PeerId> = (0..12).map(|_| PeerId::random()).collect();
        let mut seeds = Seeds::new(peers.iter().map(|peer| (*peer, addr(1))), now);
        let first: Vec<_> = seeds.poll_due(0, now).iter().filter_map(DialOpts::get_peer_id).collect();
        assert_eq!(first.len(), SEEDS_PER_ROUND);
        assert!(first.iter().all(|peer| peers[..SEEDS_PER_ROUND].contains(peer)));
        assert!(seeds.poll_due(0, now).is_empty());
        let second: Vec<_> = seeds.poll_due(3, now + RESEED_ALONE).iter().filter_map(DialOpts::get_peer_id).collect();
        assert!(peers[SEEDS_PER_ROUND..].iter().all(|peer| second.contains(peer)), "the others come next");
        assert!(seeds.poll_due(0, now + RESEED).is_empty(), "with a peer there is more time");
        assert!(seeds.poll_due(FEW_PEERS, now + RESEED * 3).is_empty());
    }
}
