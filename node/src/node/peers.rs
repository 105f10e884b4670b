//! Peers met before, written down so that a node finds its network again without anybody's help.

use std::collections::BTreeMap;
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
pub(super) fn load(path: &Path) -> Vec<Multiaddr> {
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
    let mut met: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for addr in load(&path) {
        if let Some(multiaddr::Protocol::P2p(peer)) = addr.iter().last() {
            met.entry(peer).or_default().push(addr);
        }
    }
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
                    news |= note(&mut met, event);
                    continue;
                }
                None => true,
            },
            _ = tick.tick() => false,
            () = stopping.cancelled() => true,
        };
        if std::mem::take(&mut news)
            && let Err(error) = write(&path, &met)
        {
            tracing::warn!(%error, "the peers met are not written down");
        }
        if stop {
            return;
        }
    }
}

fn note(met: &mut BTreeMap<PeerId, Vec<Multiaddr>>, event: PeerEvent) -> bool {
    let PeerEvent::Connected { peer, addrs } = event else {
        return false;
    };
    if addrs.is_empty() || (met.len() >= MAX_PEERS && !met.contains_key(&peer)) {
        return false;
    }
    let addrs = addrs.into_iter().map(|addr| addr.with_p2p(peer).unwrap_or_else(|other| other)).collect();
    met.insert(peer, addrs);
    true
}

fn write(path: &Path, met: &BTreeMap<PeerId, Vec<Multiaddr>>) -> io::Result<()> {
    let addrs: Vec<String> = met.values().flatten().map(ToString::to_string).collect();
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, &addrs)?;
    file.persist(path)?;
    Ok(())
}
