//! Peers met before, written down so that a node finds its network again without anybody's help.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pedlar_net::{Multiaddr, PeerEvent, PeerId};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Peers remembered: enough that some are still there after a year.
const MAX_PEERS: usize = 256;

/// How often the file is written while there is news.
const WRITE: Duration = Duration::from_secs(60);

/// The addresses in the file; none when there is no file, or it can't be read: it only saves time.
#[must_use]
pub fn load(path: &Path) -> Vec<Multiaddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let addrs: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
    addrs.iter().filter_map(|addr| addr.parse().ok()).collect()
}

/// Writes down who was met, and greets each that comes, until the node stops.
pub(super) async fn remember(
    path: PathBuf,
    mut events: mpsc::Receiver<PeerEvent>,
    greet: impl Fn(PeerId),
    stopping: CancellationToken,
) {
    let mut met = Met::of(load(&path));
    let mut news = false;
    let mut tick = interval(WRITE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stop = tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    if let PeerEvent::Connected { peer, .. } = event {
                        greet(peer);
                    }
                    news |= met.note(event);
                    continue;
                }
                None => true,
            },
            _ = tick.tick() => false,
            () = stopping.cancelled() => true,
        };
        if std::mem::take(&mut news)
            && let Err(error) = write(&path, &met.addrs())
        {
            tracing::warn!(%error, "the peers met are not written down");
        }
        if stop {
            return;
        }
    }
}

/// Peers in the order in which they were last met, at most [`MAX_PEERS`].
#[derive(Default)]
struct Met {
    peers: VecDeque<(PeerId, Vec<Multiaddr>)>,
    connected: BTreeSet<PeerId>,
}

impl Met {
    /// Those of the file, in its order.
    fn of(addrs: Vec<Multiaddr>) -> Self {
        let mut met = Self::default();
        for addr in addrs {
            let Some(multiaddr::Protocol::P2p(peer)) = addr.iter().last() else { continue };
            match met.peers.iter_mut().find(|(known, _)| *known == peer) {
                Some((_, addrs)) => addrs.push(addr),
                None => met.peers.push_back((peer, vec![addr])),
            }
        }
        met
    }

    /// Whether there is something to write down.
    ///
    /// For a new one goes whom nobody has met for the longest time, who may have gone for good; never one that is
    /// connected, so that strangers who come and go can't make us forget whom we are with.
    fn note(&mut self, event: PeerEvent) -> bool {
        let (peer, addrs) = match event {
            PeerEvent::Connected { peer, addrs } => (peer, addrs),
            PeerEvent::Disconnected { peer } => {
                self.connected.remove(&peer);
                return false;
            }
        };
        self.connected.insert(peer);
        if addrs.is_empty() {
            return false;
        }
        self.peers.retain(|(known, _)| *known != peer);
        while self.peers.len() >= MAX_PEERS {
            let Some(oldest) = self.peers.iter().position(|(known, _)| !self.connected.contains(known)) else {
                return false;
            };
            self.peers.remove(oldest);
        }
        let addrs = addrs.into_iter().map(|addr| addr.with_p2p(peer).unwrap_or_else(|other| other)).collect();
        self.peers.push_back((peer, addrs));
        true
    }

    fn addrs(&self) -> Vec<String> {
        self.peers.iter().flat_map(|(_, addrs)| addrs).map(ToString::to_string).collect()
    }
}

fn write(path: &Path, addrs: &[String]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, addrs)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come(met: &mut Met) -> PeerId {
        let peer = PeerId::random();
        met.note(PeerEvent::Connected { peer, addrs: vec!["/ip4/9.9.9.9/tcp/1".parse().unwrap()] });
        peer
    }

    #[test]
    fn who_was_not_met_for_longest_is_forgotten_first_and_who_is_connected_never() {
        let mut met = Met::default();
        let (stays, oldest) = (come(&mut met), come(&mut met));
        met.note(PeerEvent::Disconnected { peer: oldest });
        for _ in 0..MAX_PEERS * 2 {
            let peer = come(&mut met);
            met.note(PeerEvent::Disconnected { peer });
        }
        assert_eq!(met.peers.len(), MAX_PEERS);
        let is_known = |peer| met.peers.iter().any(|(known, _)| *known == peer);
        assert!(is_known(stays) && !is_known(oldest));
        let again = Met::of(met.addrs().iter().map(|addr| addr.parse().unwrap()).collect());
        assert!(again.peers == met.peers, "the file keeps the order");
        let mut crowded = Met::default();
        let all: Vec<PeerId> = (0..MAX_PEERS).map(|_| come(&mut crowded)).collect();
        let late = come(&mut crowded);
        assert_eq!(crowded.peers.len(), MAX_PEERS);
        assert!(crowded.peers.iter().all(|(known, _)| *known != late) && crowded.peers[0].0 == all[0]);
    }
}
