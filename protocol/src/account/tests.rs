use super::*;
use crate::content::Root;
use crate::credit::SignedGrant;
use crate::id::PayeeId;
use crate::session::quote::{Quote, SignedQuote, SignedReceipt};
use crate::settlement::{SignedTopUp, TopUp};
use crate::text::Name;
use crate::wire::peer_id;
use libp2p_identity::ed25519::{Keypair, SecretKey};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn key(n: u8) -> Keypair {
    SecretKey::try_from_bytes([n; 32]).unwrap().into()
}

/// A quote of seller 1 to buyer 2.
fn quote(number: u64, price: u64) -> SignedQuote {
    let quote = Quote {
        network: "regtest-1".parse().unwrap(),
        buyer: peer_id(&key(2)),
        seller: peer_id(&key(1)),
        number,
        offer_seq: 3,
        service: Service::Chunks,
        collection: None,
        whole: None,
        object: *Root::of(b"goods").as_bytes(),
        size: 1 << 30,
        price: Price::per_gib(price),
        expires: NOW,
    };
    SignedQuote::sign(quote, &key(1))
}

/// A sold line under which `admitted` bytes were admitted, and `sent` left before the stream ended.
fn sold(number: u64, admitted: u64, signed: u64, sent: Option<u64>) -> Line {
    let mut line = Line::new(Direction::Sold, quote(number, 1 << 30), Timestamp::from_ms(number));
    line.admit(admitted);
    if signed > 0 {
        line.sign(SignedReceipt::sign(line.id(), signed, &key(2))).unwrap();
    }
    if let Some(sent) = sent {
        line.end(sent);
    }
    line
}

fn account(lines: impl IntoIterator<Item = Line>) -> Account {
    let mut account = Account::default();
    lines.into_iter().for_each(|line| account.apply(&Change::Line(line)));
    account
}

fn payment(n: u8, sat: u64, depth: u32) -> Payment {
    Payment {
        outpoint: OutPoint { txid: [n; 32], vout: n.into() },
        topup: TopUpId([n; 32]),
        amount_sat: sat,
        height: 100 + u64::from(n),
        depth,
        needed: 1,
        repaid: (depth > 0).then_some(Repaid { debt: Msat::new(7), late_weight: 2, epoch: 1 }),
        fee_sat: 150,
        ours: true,
    }
}

#[test]
fn a_tab_is_missing_only_what_is_not_covered() {
    let msat = Msat::new;
    let tab = Tab { paid: msat(100), spent: msat(60), held: msat(30) };
    assert_eq!((tab.missing(msat(10), Msat::ZERO), tab.room(Msat::ZERO)), (Msat::ZERO, msat(10)));
    assert_eq!((tab.missing(msat(11), Msat::ZERO), tab.missing(msat(11), msat(1))), (msat(1), Msat::ZERO));
    assert_eq!((tab.debt(), tab.prepaid()), (Msat::ZERO, msat(40)));
    assert_eq!(Tab { spent: Msat::MAX, ..tab }.missing(Msat::MAX, Msat::ZERO), msat(u64::MAX - 100));
}

#[test]
fn small_tails_are_let_go_and_large_ones_stay_held() {
    let floor = TAIL_FLOOR_BYTES;
    let kept = account([sold(1, floor, 0, Some(floor))]);
    assert_eq!((kept.held(), kept.tails(), kept.tail_bytes()), (Msat::ZERO, Msat::new(floor), floor));
    let over = account([sold(1, floor, 0, Some(floor)), sold(2, 1, 0, Some(1))]);
    assert_eq!((over.held(), over.tails()), (Msat::new(floor + 1), Msat::ZERO));
    let open = account([sold(1, floor, 0, None)]);
    assert_eq!((open.held(), open.tails()), (Msat::new(floor), Msat::ZERO), "while the stream is there");
    let trusted = floor * TAIL_SHARE * 2;
    let signed = account([sold(1, trusted, trusted, Some(trusted)), sold(2, 2 * floor, 0, Some(2 * floor))]);
    assert!(signed.tails_forgiven(), "a thousandth of what was signed for");
}

#[test]
fn what_a_crash_interrupted_is_not_held_and_its_receipt_still_counts() {
    let mut line = sold(1, 500, 100, None);
    line.interrupt();
    assert_eq!((line.held(), line.unsigned_units(), line.is_settled()), (Msat::ZERO, 0, false));
    let beyond = SignedReceipt::sign(line.id(), 501, &key(2));
    assert_eq!(line.sign(beyond), Err(LineError::BeyondSent { signed: 501, sent: 500 }));
    assert_eq!(line.sign(SignedReceipt::sign(line.id(), 500, &key(2))), Ok(500));
    assert!(line.is_settled());
    let other = SignedReceipt::sign(QuoteId([0; 32]), 1, &key(2));
    assert_eq!(line.sign(other), Err(LineError::OtherQuote));
}

/// A buyer that signs for what was admitted and never came owes it, and what it signed for was admitted at any time.
#[test]
fn a_stream_that_ends_takes_nothing_back_that_was_signed_for() {
    let mut line = sold(1, 500, 0, None);
    line.sign(SignedReceipt::sign(line.id(), 500, &key(2))).unwrap();
    line.end(100);
    assert_eq!((line.admitted_units(), line.signed_units(), line.unsigned_units()), (500, 500, 0));
    assert_eq!(line.sign(SignedReceipt::sign(line.id(), 500, &key(2))), Ok(500), "told again, it counts as before");
}

#[test]
fn a_seller_acknowledges_no_more_than_was_signed_for() {
    let mut line = Line::new(Direction::Bought, quote(1, 1), NOW);
    line.sign(SignedReceipt::sign(line.id(), 100, &key(2))).unwrap();
    line.interrupt();
    line.acknowledge(99);
    assert!(!line.is_settled());
    line.acknowledge(u64::MAX);
    assert!(line.is_settled());
    line.sign(SignedReceipt::sign(line.id(), 200, &key(2))).unwrap();
    assert!(!line.is_settled(), "what is signed later is told, too");
}

/// Folds until nothing is left to fold; the tab must not notice.
fn fold_all(account: &mut Account) {
    let before = (account.tab(), account.tail_bytes(), account.tails());
    while let Some(change) = account.foldable() {
        account.apply(&change);
        assert_eq!((account.tab(), account.tail_bytes(), account.tails()), before);
    }
}

#[test]
fn free_lines_fold_at_once_and_settled_ones_before_tails() {
    let mut few =
        account([sold(1, 5, 5, Some(5)), sold(2, 5, 0, Some(0)), sold(3, 5, 0, Some(5)), sold(4, 5, 0, None)]);
    fold_all(&mut few);
    assert_eq!((few.lines().count(), few.folded().quotes), (3, 1));

    let many = MAX_LINES as u64;
    let mut lines: Vec<Line> = (0..many).map(|n| sold(n, 9, 4, Some(9))).collect();
    lines.extend((many..many + 10).map(|n| sold(n, 9, 9, Some(9))));
    lines.push(sold(many + 10, 9, 0, None));
    let mut account = account(lines);
    fold_all(&mut account);
    assert_eq!(account.lines().count(), MAX_LINES);
    assert_eq!(
        account.folded(),
        Folded { quotes: 11, units: 94, spent: Msat::new(94), tail_units: 5, tail: Msat::new(5), newest: many + 9 }
    );
}

/// A change of each kind, as the node of `key(1)` sees its peer, with the direction it belongs to.
fn changes() -> Vec<(Direction, Change)> {
    let topup = TopUp {
        id: TopUpId([3; 32]),
        network: "regtest-1".parse().unwrap(),
        buyer: peer_id(&key(2)),
        seller: peer_id(&key(1)),
        address: "bcrt1qexample".into(),
        min_sat: 1_000,
        ceilings: [(Service::Chunks, Price::per_gib(5))].into(),
        until_height: 7,
    };
    let asked =
        TopUpLine { id: TopUpId([3; 32]), amount_sat: 9, topup: None, created: NOW, closed: false, payee: None };
    let topup = Some(SignedTopUp::sign(topup, &key(1)));
    let given = TopUpLine { topup, closed: true, payee: Some(PayeeId([4; 32])), ..asked.clone() };
    let mut interrupted = sold(2, 900, 300, None);
    interrupted.interrupt();
    let total = Folded { quotes: 1, units: 2, spent: Msat::new(3), tail_units: 4, tail: Msat::new(5), newest: 6 };
    let grant = Some((SignedGrant::sign(&peer_id(&key(2)), Msat::new(9), &key(1)), NOW));
    let history =
        History { counted: Msat::new(1), decayed: Msat::new(2), decayed_at: NOW, grant, failed: Msat::new(1) };
    let bought = Line::new(Direction::Bought, quote(5, 7), NOW);
    let spending = crate::budget::Spending { id: TopUpId([3; 32]), at: NOW, sat: 11 };
    vec![
        (Direction::Sold, Change::Line(sold(1, 500, 0, Some(400)))),
        (Direction::Sold, Change::Line(interrupted)),
        (Direction::Bought, Change::Line(bought)),
        (Direction::Sold, Change::Fold { quotes: Vec::new(), total }),
        (Direction::Bought, Change::TopUp { line: asked, gives_up: Vec::new() }),
        (Direction::Sold, Change::TopUp { line: given, gives_up: Vec::new() }),
        (Direction::Sold, Change::Payment(Payment { needed: 0, ..payment(1, 5, 0) })),
        (Direction::Bought, Change::Payment(Payment { needed: 0, ..payment(2, u64::MAX, 3) })),
        (Direction::Sold, Change::History(history)),
        (Direction::Bought, Change::History(History::default())),
        (Direction::Sold, Change::Block(Some(Block { since: NOW, note: Some(Name::new("late").unwrap()) }))),
        (Direction::Bought, Change::Block(None)),
        (Direction::Bought, Change::Spending { spending, forgets: Vec::new() }),
    ]
}

fn entries() -> Vec<Entry> {
    let entry = |(direction, change)| Entry { peer: peer_id(&key(2)), direction, change };
    changes().into_iter().map(entry).collect()
}

#[test]
fn every_row_is_read_as_it_was_written_and_keys_differ() {
    let us = peer_id(&key(1));
    for entry in entries() {
        assert_eq!(Entry::decode(&entry.encode(), &us), Ok(entry));
    }
    let keys: std::collections::BTreeSet<_> = entries().iter().map(Entry::key).collect();
    assert_eq!(keys.len(), entries().len());
}

#[test]
fn rows_that_are_no_more_are_named() {
    let entry = |change| Entry { peer: peer_id(&key(2)), direction: Direction::Sold, change };
    let line = entry(Change::Line(sold(1, 5, 5, Some(5))));
    let fold = entry(Change::Fold { quotes: vec![quote(1, 1 << 30).id()], total: Folded::default() });
    assert_eq!(fold.obsoletes(), [line.key()]);
    let [old, new] = [3, 4].map(|n| TopUpLine {
        id: TopUpId([n; 32]),
        amount_sat: 1,
        topup: None,
        created: NOW,
        closed: false,
        payee: None,
    });
    let old = entry(Change::TopUp { line: old, gives_up: Vec::new() });
    let new = entry(Change::TopUp { line: new, gives_up: vec![TopUpId([3; 32])] });
    assert_eq!(new.obsoletes(), [old.key()]);
    let mut account = Account::default();
    [&old, &new].into_iter().for_each(|entry| account.apply(&entry.change));
    assert_eq!(account.topups().count(), 1);
}

#[test]
fn rows_of_an_older_program_have_no_check() {
    let entry = entries().swap_remove(0);
    let mut bytes = entry.encode();
    bytes.truncate(bytes.len() - 10);
    assert_eq!(Entry::decode(&bytes, &peer_id(&key(1))), Ok(entry));
}

#[test]
fn a_row_whose_papers_are_another_s_is_damage() {
    let grant = SignedGrant::sign(&peer_id(&key(3)), Msat::new(9), &key(1));
    let change = Change::History(History { grant: Some((grant, NOW)), ..History::default() });
    let entry = Entry { peer: peer_id(&key(2)), direction: Direction::Sold, change };
    assert_eq!(Entry::decode(&entry.encode(), &peer_id(&key(1))), Err(EntryError::Field("grant")));
    let foreign = Line::new(Direction::Sold, quote(1, 1), NOW);
    let receipt = SignedReceipt::sign(quote(2, 1).id(), 5, &key(2));
    let change = Change::Line(foreign.restored(Some(receipt), 5, true, false));
    let entry = Entry { change, ..entry };
    assert_eq!(Entry::decode(&entry.encode(), &peer_id(&key(1))), Err(EntryError::Field("receipt")));
}

proptest! {
    #[test]
    fn a_damaged_row_is_an_error_or_says_the_same(which: prop::sample::Index, at: prop::sample::Index, bit in 0..8_u8) {
        let entry = which.get(&entries()).clone();
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Entry::decode(&bytes, &peer_id(&key(1))) {
            prop_assert_eq!(other, entry);
        }
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(bytes: Vec<u8>) {
        let _ = Entry::decode(&bytes, &peer_id(&key(1)));
    }

    /// I4: receipts come late, twice and in any order; the highest that can count does, and nothing else matters.
    #[test]
    fn receipts_merge_by_the_highest(mut units in proptest::collection::vec(1..2_000_u64, 1..12), seed: u64) {
        let merged = |units: &[u64]| {
            let mut line = sold(1, 1_000, 0, Some(1_000));
            for units in units {
                // One for more than was sent changes nothing.
                let _ = line.sign(SignedReceipt::sign(line.id(), *units, &key(2)));
            }
            line
        };
        let line = merged(&units);
        prop_assert_eq!(line.signed_units(), units.iter().copied().filter(|units| *units <= 1_000).max().unwrap_or(0));
        let turns = usize::try_from(seed).unwrap_or(0) % units.len();
        units.rotate_left(turns);
        units.extend_from_within(..turns);
        prop_assert_eq!(merged(&units), line);
    }

    /// I3: the charge follows the cumulative units, whatever the steps in which they were signed for, and is the same on
    /// both sides; a hold is what is left of the same charge.
    #[test]
    fn a_charge_knows_only_the_sum(price in 0..1_u64 << 40, steps in proptest::collection::vec(1..1_u64 << 20, 1..8)) {
        let quote = quote(1, price);
        let total: u64 = steps.iter().sum();
        let [mut ours, mut theirs] = [Direction::Sold, Direction::Bought].map(|side| Line::new(side, quote.clone(), NOW));
        ours.admit(total);
        let mut units = 0;
        for step in steps {
            units += step;
            ours.sign(SignedReceipt::sign(quote.id(), units, &key(2))).unwrap();
            prop_assert_eq!(ours.spent().checked_add(ours.held()), Some(quote.charge(total)));
        }
        theirs.sign(SignedReceipt::sign(quote.id(), total, &key(2))).unwrap();
        prop_assert_eq!((ours.spent(), theirs.spent()), (quote.charge(total), quote.charge(total)));
    }

    /// I7, I8, I11: the view is the sum of what is credited, each output once, whatever was told before.
    #[test]
    fn an_output_counts_once_and_only_when_deep_enough(
        facts in proptest::collection::vec((0..4_u8, 1..1_000_u64, 0..8_u32), 0..24), spent in 0..2_000_u64,
    ) {
        let mut account = account([sold(1, spent, spent, Some(spent))]);
        let mut newest = BTreeMap::new();
        for (n, sat, depth) in facts {
            account.apply(&Change::Payment(payment(n, sat, depth)));
            newest.insert(n, (sat, depth));
        }
        let paid: u64 = newest.values().filter(|(_, depth)| *depth > 0).map(|(sat, _)| sat * 1_000).sum();
        let tab = account.tab();
        prop_assert_eq!(tab.paid, Msat::new(paid));
        prop_assert_eq!(tab.prepaid().msat(), paid.saturating_sub(spent));
        prop_assert_eq!(tab.debt().msat(), spent.saturating_sub(paid));
        prop_assert!(account.realised() <= tab.spent && account.realised() <= account.paid_final());
    }
}
