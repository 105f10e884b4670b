//! What goes wrong: on the way, at the nodes, with their clocks and with the chain.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result as FmtResult};
use std::time::Duration;

use pedlar_protocol::time::Timestamp;

use super::{Event, NODES, Packet, Storm};
use crate::dice::Dice;

/// What went wrong, by its kind, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<&'static str, u64>);

impl Faults {
    /// Every kind.
    pub const KINDS: [&'static str; 13] = [
        LOST,
        CUT,
        DOUBLED,
        OVERTAKEN,
        CRASH,
        UNSTORED,
        JUMPS[0],
        JUMPS[1],
        JUMPS[2],
        JUMPED_STREAM,
        FUTURE_OFFER,
        REORGED,
        UNDONE,
    ];

    /// The kinds that a clock brings about.
    pub const CLOCKS: [&'static str; 5] = [JUMPS[0], JUMPS[1], JUMPS[2], JUMPED_STREAM, FUTURE_OFFER];

    /// How often this kind fired.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Adds another storm's.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, count)| self.fired(kind, *count));
    }

    pub(super) fn fired(&mut self, kind: &'static str, count: u64) {
        *self.0.entry(kind).or_default() += count;
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{}", self.0.values().sum::<u64>())?;
        self.0.iter().try_for_each(|(kind, count)| write!(f, ", {kind} {count}"))
    }
}

const LOST: &str = "lost";
const CUT: &str = "cut off";
const DOUBLED: &str = "doubled";
const OVERTAKEN: &str = "overtaken";
const CRASH: &str = "crashes";
/// A change that was decided, and lost by a crash before it was stored.
const UNSTORED: &str = "changes unstored";
const JUMPS: [&str; 3] = ["clocks off by 30 s", "clocks off by 1 h", "clocks off by 30 d"];
/// A session that was open when the clock under it jumped.
const JUMPED_STREAM: &str = "sessions under a jump";
pub(super) const FUTURE_OFFER: &str = "offers from a future";
pub(super) const REORGED: &str = "payments reorged";
/// A payment that counted, and whose coins were spent otherwise.
pub(super) const UNDONE: &str = "payments undone";

/// What a storm is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sky {
    /// Everything, each more or less as the seed says.
    Any,
    /// Clocks only (R20).
    Clocks,
}

/// How likely what is, in thousandths; drawn for each storm, so that some are fair in most ways.
pub(super) struct Weather {
    loses: u64,
    doubles: u64,
    overtakes: u64,
    crashes: u64,
    cuts: u64,
    jumps: u64,
    reorgs: u64,
    /// When the newest message on each way arrives: the next one comes after it.
    busy: [[Timestamp; NODES]; NODES],
    /// Until when a way is cut.
    cut: [[Timestamp; NODES]; NODES],
}

impl Weather {
    pub(super) fn drawn(sky: Sky, dice: &mut Dice) -> Self {
        if sky == Sky::Clocks {
            return Self { jumps: 500, ..Self::calm() };
        }
        let mut up_to = |most: u64| if dice.below(3) == 0 { 0 } else { dice.below(most) };
        Self {
            loses: up_to(30),
            doubles: up_to(30),
            overtakes: up_to(30),
            crashes: up_to(400),
            cuts: up_to(300),
            jumps: up_to(300),
            reorgs: up_to(300),
            ..Self::calm()
        }
    }

    pub(super) const fn calm() -> Self {
        let never = [[Timestamp::from_ms(0); NODES]; NODES];
        Self { loses: 0, doubles: 0, overtakes: 0, crashes: 0, cuts: 0, jumps: 0, reorgs: 0, busy: never, cut: never }
    }

    pub(super) fn reorganises(&self, dice: &mut Dice) -> bool {
        dice.below(1_000) < self.reorgs
    }
}

impl Storm {
    /// A message goes on its way, as far as the weather lets it.
    pub(super) fn travels(&mut self, packet: Packet) {
        let (from, to) = (packet.from, packet.to);
        if self.weather.cut[from][to] > self.now {
            self.faults.fired(CUT, 1);
            return;
        }
        if self.dice.below(1_000) < self.weather.loses {
            self.faults.fired(LOST, 1);
            return;
        }
        if self.dice.below(1_000) < self.weather.doubles {
            self.faults.fired(DOUBLED, 1);
            let late_ms = 20 + self.dice.below(5_000);
            self.plan(late_ms, Event::Arrives(packet.clone()));
        }
        let in_ms = 20 + self.dice.below(180);
        if self.dice.below(1_000) < self.weather.overtakes {
            self.faults.fired(OVERTAKEN, 1);
            let late_ms = in_ms + self.dice.below(2_000);
            return self.plan(late_ms, Event::Arrives(packet));
        }
        let arrives = self.now.saturating_add(Duration::from_millis(in_ms)).max(self.weather.busy[from][to]);
        self.weather.busy[from][to] = arrives;
        let in_ms = u64::try_from(arrives.since(self.now).as_millis()).expect("soon");
        self.plan(in_ms, Event::Arrives(packet));
    }

    /// Something befalls a node, now and then.
    pub(super) fn gust(&mut self) {
        if self.calm {
            return;
        }
        let node = self.dice.below(NODES as u64) as usize;
        if self.dice.below(1_000) < self.weather.crashes && self.peers[node].up {
            self.crash(node);
        }
        if self.dice.below(1_000) < self.weather.cuts {
            let (other, long_ms) = (self.dice.below(NODES as u64) as usize, 1_000 + self.dice.below(120_000));
            let until = self.now.saturating_add(Duration::from_millis(long_ms));
            self.weather.cut[node][other] = until;
            self.weather.cut[other][node] = until;
            self.tell(|| format!("{node} and {other} are cut off for {long_ms} ms"));
        }
        if self.dice.below(1_000) < self.weather.jumps {
            self.jump(node);
        }
        let in_ms = 2_000 + self.dice.below(20_000);
        self.plan(in_ms, Event::Gust);
    }

    /// Something befalls a node at the worst moment: it has decided, and nothing is stored yet.
    pub(super) fn flaw(&mut self, node: usize) {
        if self.dice.below(40_000) < self.weather.crashes && self.peers[node].up {
            self.crash(node);
        }
        if self.dice.below(40_000) < self.weather.jumps {
            self.jump(node);
        }
    }

    fn crash(&mut self, node: usize) {
        let peer = &mut self.peers[node];
        let unstored = peer.node.market.poll_entries().1.len();
        self.faults.fired(CRASH, 1);
        self.faults.fired(UNSTORED, unstored as u64);
        (peer.up, peer.storing, peer.life) = (false, false, peer.life + 1);
        peer.outbox.clear();
        peer.buys.clear();
        let sells = std::mem::take(&mut peer.sells);
        for ((buyer, _), stream) in sells {
            let buyer = self.peers[buyer].node.id;
            self.peers[node].truth.ended(buyer, stream.quote, stream.sent);
            self.peers[node].ending.push((buyer, stream.quote));
        }
        let peer = &mut self.peers[node];
        peer.ending.drain(..).for_each(|(buyer, quote)| peer.truth.interrupted(buyer, quote));
        self.tell(|| format!("{node} goes down and loses {unstored} changes"));
        let in_ms = 500 + self.dice.below(60_000);
        self.plan(in_ms, Event::Rises { node });
    }

    pub(super) fn rise(&mut self, node: usize) {
        if self.peers[node].up {
            return;
        }
        let (now, tip) = (self.clock(node), self.chain.tip);
        let peer = &mut self.peers[node];
        peer.node.restart(now, tip);
        peer.up = true;
        let life = peer.life;
        self.tell(|| format!("{node} is up again"));
        self.tell_node(node);
        self.plan(100, Event::Tick { node, life });
    }

    /// R20: a clock is set, by seconds, by an hour, by a month, to either side.
    fn jump(&mut self, node: usize) {
        const FAR_MS: [u64; 3] = [30_000, 3_600_000, 30 * 86_400_000];
        let kind = self.dice.below(3) as usize;
        let far = FAR_MS[kind].cast_signed();
        let peer = &mut self.peers[node];
        // From where it was: two jumps may go further, and one may undo the other.
        peer.node.ahead_ms = if self.dice.below(2) == 0 { far } else { -far };
        self.faults.fired(JUMPS[kind], 1);
        self.faults.fired(JUMPED_STREAM, (peer.sells.len() + peer.buys.len()) as u64);
        let ahead_ms = peer.node.ahead_ms;
        self.tell(|| format!("the clock of {node} is {ahead_ms} ms ahead"));
    }
}
