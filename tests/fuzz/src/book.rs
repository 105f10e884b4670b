//! The book against a model that is slow and obvious: a list of everything that was ever accepted.

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p_identity::PeerId;
use pedlar_protocol::book::{Book, Verdict};
use pedlar_protocol::offer::{Service, SignedOffer, UnverifiedOffer};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;

use crate::signer;

const MINUTE_MS: u64 = 60_000;
/// The rate of a seller: three offers at once, one a minute after that.
const BURST_MS: u64 = 3 * MINUTE_MS;
/// How far an offer may be ahead.
const AHEAD_MS: u64 = 5 * MINUTE_MS;
const START_MS: u64 = 1_800_000_000_000;

/// Sequences of operations on a book with room for all sellers: it accepts exactly what the model accepts, and lists
/// exactly the newest live offer of each.
pub fn book(data: &[u8]) {
    let mut book = Book::new(signer::network());
    let mut model = Model::default();
    let mut now_ms = START_MS;
    for op in data.chunks_exact(4) {
        let &[kind, who, a, b] = op else { return };
        match kind % 8 {
            0 => now_ms += u64::from(a) * 1_000,
            1 => now_ms += u64::from(a) * MINUTE_MS,
            2 => {
                book.expire(Timestamp::from_ms(now_ms));
                model.expire(now_ms);
            }
            3 => assert!(book.keep(peer_id(signer::key(who)))),
            _ => {
                let entry = Entry::new(who, a, b, now_ms);
                let verdict = receive(&mut book, Timestamp::from_ms(now_ms), entry.sign().bytes(), u64::from(b));
                assert_eq!(verdict == Verdict::Accept, model.accepts(&entry, now_ms), "{entry:?}: {verdict:?}");
                if verdict == Verdict::Accept {
                    model.accepted.entry(entry.who).or_default().push(entry);
                }
            }
        }
        let listed =
            book.offers(Timestamp::from_ms(now_ms), Service::Chunks).map(|(offer, _)| (offer.seller, offer.sequence));
        assert_eq!(listed.collect::<Vec<_>>(), model.listed(now_ms));
    }
}

/// Both halves of judging what came, and the signature between them.
fn receive(book: &mut Book, now: Timestamp, bytes: &Bytes, random: u64) -> Verdict {
    let signed = match book.screen(now, bytes).map(UnverifiedOffer::verify) {
        Ok(Ok(signed)) => signed,
        Ok(Err(error)) => return Verdict::Reject(error),
        Err(verdict) => return verdict,
    };
    book.insert(now, signed, random).map_or_else(Verdict::Ignore, |()| Verdict::Accept)
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    who: u8,
    sequence: u64,
    issued_ms: u64,
    expires_ms: u64,
    arrived_ms: u64,
}

impl Entry {
    fn new(who: u8, a: u8, b: u8, now_ms: u64) -> Self {
        // From 32 minutes ago to 31 ahead, for 1 to 16 minutes.
        let issued_ms = now_ms + u64::from(a % 64) * MINUTE_MS - 32 * MINUTE_MS;
        let expires_ms = issued_ms + (1 + u64::from(b % 16)) * MINUTE_MS;
        Self { who: who % signer::KEYS, sequence: u64::from(b / 16), issued_ms, expires_ms, arrived_ms: now_ms }
    }

    fn sign(&self) -> SignedOffer {
        let (issued, expires) = (Timestamp::from_ms(self.issued_ms), Timestamp::from_ms(self.expires_ms));
        let offer = signer::offer(self.who, self.sequence, issued, expires);
        SignedOffer::sign(signer::key(self.who), offer).expect("a good offer")
    }
}

/// What was accepted of each seller since it was last forgotten, oldest first.
#[derive(Default)]
struct Model {
    accepted: BTreeMap<u8, Vec<Entry>>,
}

impl Model {
    fn accepts(&self, entry: &Entry, now_ms: u64) -> bool {
        let timely = now_ms < entry.expires_ms && entry.issued_ms <= now_ms + AHEAD_MS;
        let newer = self.of(entry.who).iter().all(|held| held.sequence < entry.sequence);
        timely && newer && self.tokens_ms(entry.who, now_ms) >= MINUTE_MS
    }

    /// A bucket of three minutes that fills with time and pays one minute for each offer, replayed from its start.
    fn tokens_ms(&self, who: u8, now_ms: u64) -> u64 {
        let (mut tokens_ms, mut at_ms) = (BURST_MS, START_MS);
        for held in self.of(who) {
            tokens_ms = (tokens_ms + held.arrived_ms - at_ms).min(BURST_MS) - MINUTE_MS;
            at_ms = held.arrived_ms;
        }
        (tokens_ms + now_ms - at_ms).min(BURST_MS)
    }

    fn expire(&mut self, now_ms: u64) {
        self.accepted.retain(|_, held| held.last().is_some_and(|last| now_ms < last.expires_ms));
    }

    fn listed(&self, now_ms: u64) -> Vec<(PeerId, u64)> {
        let live = self.accepted.values().filter_map(|held| held.last()).filter(|last| now_ms < last.expires_ms);
        let mut listed: Vec<_> = live.map(|last| (peer_id(signer::key(last.who)), last.sequence)).collect();
        listed.sort();
        listed
    }

    fn of(&self, who: u8) -> &[Entry] {
        self.accepted.get(&who).map_or(&[], Vec::as_slice)
    }
}
