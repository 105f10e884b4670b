use std::collections::HashSet;

use bdk_wallet::KeychainKind;
use bitcoin::{FeeRate, Transaction};

use super::*;
use crate::state::State;
use crate::tests::{Feed, spend, stranger};

const RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
const FEE: Fee = Fee { rate: RATE, ceiling: FeeRate::from_sat_per_vb_u32(100), max_sat: 1_000 };

fn terms(id: u8, sat: u64) -> Terms {
    Terms { id: PaymentId([id; 32]), address: stranger(), sat }
}

fn pay(feed: &mut Feed, terms: &Terms) -> Result<Payment, PayError> {
    pay_for(feed, terms, &FEE)
}

fn pay_for(feed: &mut Feed, terms: &Terms, fee: &Fee) -> Result<Payment, PayError> {
    let now_ms = feed.now_ms();
    feed.state.pay_all(std::slice::from_ref(terms), fee, now_ms).map(|mut paid| paid.remove(0))
}

fn bump(feed: &mut Feed, txid: Txid, sat_vb: u32) -> Result<Bump, BumpError> {
    let now_ms = feed.now_ms();
    let fee = Fee { max_sat: 100_000, ..FEE };
    feed.state.bump(txid, Some(FeeRate::from_sat_per_vb_u32(sat_vb)), &fee, now_ms)
}

fn payment(feed: &Feed, id: u8) -> Payment {
    feed.state.payment(PaymentId([id; 32])).unwrap().unwrap()
}

fn transaction(feed: &Feed, id: u8) -> Transaction {
    feed.state.live_transaction(payment(feed, id).txid.unwrap()).unwrap().unwrap().as_ref().clone()
}

fn state(feed: &Feed, id: u8) -> PaymentState {
    payment(feed, id).state
}

#[test]
fn an_id_is_paid_once() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let first = pay(&mut feed, &terms(1, 10_000)).unwrap();
    assert_eq!(first.state, PaymentState::Signed);
    assert_eq!(first.fee_sat, Some(281), "140.25 vB at 2 sat/vB");
    let mut feed = feed.reopen();
    assert_eq!(pay(&mut feed, &terms(1, 10_000)).unwrap(), first);
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1);
    let other = pay(&mut feed, &terms(1, 10_001)).unwrap_err();
    assert!(matches!(other, PayError::OtherTerms { sat: 10_000, .. }), "{other}");
}

#[test]
fn what_is_signed_and_stored_is_paid_although_the_next_write_fails() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    // The rows of the payment are written, and then the disk is full.
    let full = "CREATE TEMP TRIGGER full BEFORE INSERT ON main.bdk_txs BEGIN SELECT raise(FAIL, 'full'); END";
    feed.state.db.execute_batch(full).unwrap();
    let paid = pay(&mut feed, &terms(1, 10_000)).unwrap();
    assert!(feed.state.unwritten().is_some(), "the owner is told");
    let txid = paid.txid.unwrap();
    feed.state.db.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(pay(&mut feed, &terms(1, 10_000)).unwrap(), paid);
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1);
    feed.show(&[]);
    assert_eq!(feed.state.unwritten(), None);
    feed.state.db.execute_batch(full).unwrap();
    let bumped = bump(&mut feed, txid, 9).unwrap();
    assert_eq!(payment(&feed, 1).txid, bumped.txid);
    // Also after a crash: no coin of it is chosen again.
    let mut feed = feed.reopen();
    let short = pay(&mut feed, &terms(2, 50_000)).unwrap_err();
    assert!(matches!(short, PayError::Short { .. }), "{short}");
}

#[test]
fn what_cannot_be_paid_leaves_nothing_behind() {
    let mut feed = Feed::new();
    feed.fund(20_000);
    let short = pay(&mut feed, &terms(1, 50_000)).unwrap_err();
    assert!(matches!(short, PayError::Short { have_sat: 20_000, need_sat } if need_sat > 50_000), "{short}");
    let short = pay(&mut feed, &terms(1, u64::MAX)).unwrap_err();
    assert!(matches!(short, PayError::Short { have_sat: 20_000, need_sat: u64::MAX }), "{short}");
    let dear = pay_for(&mut feed, &terms(1, 10_000), &Fee { max_sat: 280, ..FEE }).unwrap_err();
    assert!(matches!(dear, PayError::FeeAboveLimit { fee_sat: 281, max_fee_sat: 280 }), "{dear}");
    assert!(matches!(pay(&mut feed, &terms(1, 293)), Err(PayError::Dust { min_sat: 294 })));
    let signet = Network::Signet.parse_address("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx").unwrap();
    let elsewhere = pay(&mut feed, &Terms { address: signet, ..terms(1, 10_000) }).unwrap_err();
    assert!(matches!(elsewhere, PayError::OtherNetwork { expected: Network::Regtest }), "{elsewhere}");
    assert_eq!(feed.state.payment(PaymentId([1; 32])).unwrap(), None);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
}

#[test]
fn a_fee_is_known_before_there_are_coins() {
    let mut feed = Feed::new();
    assert_eq!(feed.state.estimate_fee(&[10_000], &FEE).unwrap(), 282);
    for _ in 0..2 {
        feed.fund(10_000);
    }
    let two_coins = feed.state.estimate_fee(&[15_000], &FEE).unwrap();
    assert!((2 * 200..2 * 220).contains(&two_coins), "{two_coins}");
    assert_eq!(feed.state.wallet.derivation_index(KeychainKind::Internal), None, "nothing was used up");
}

#[test]
fn no_coin_is_chosen_twice_whatever_the_server_says() {
    let mut feed = Feed::new();
    for _ in 0..5 {
        feed.fund(100_000);
    }
    let mut spent = HashSet::new();
    for id in 1..=40 {
        pay(&mut feed, &terms(id, 10_000)).unwrap();
        let tx = transaction(&feed, id);
        for input in &tx.input {
            assert!(spent.insert(input.previous_output), "payment {id} spends {} again", input.previous_output);
        }
        feed.evict(&tx);
    }
}

#[test]
fn strangers_coins_wait_for_a_block_and_own_change_does_not() {
    let mut feed = Feed::new();
    let address = feed.state.receive_address().unwrap();
    let gift = feed.gift(&address, 50_000);
    feed.show(&[&gift]);
    assert!(matches!(pay(&mut feed, &terms(1, 10_000)), Err(PayError::Short { have_sat: 0, .. })));
    feed.mine(&[&gift]);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    pay(&mut feed, &terms(2, 10_000)).unwrap();
    let parent = transaction(&feed, 1).compute_txid();
    assert_eq!(transaction(&feed, 2).input[0].previous_output.txid, parent);
}

#[test]
fn a_payment_goes_from_signed_to_final_and_back() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let tx = transaction(&feed, 1);
    feed.mine(&[]);
    assert_eq!(state(&feed, 1), PaymentState::Signed, "no server named it yet");
    feed.show(&[&tx]);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast);
    feed.evict(&tx);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast, "it is sent again");
    for depth in 1..FINAL_DEPTH {
        if depth == 1 {
            feed.mine(&[&tx])
        } else {
            feed.mine(&[])
        };
        assert_eq!(state(&feed, 1), PaymentState::Confirmed { height: 3, depth });
    }
    feed.mine(&[]);
    assert_eq!(state(&feed, 1), PaymentState::Final { height: 3 });
    assert_eq!(feed.state.live_transactions().unwrap(), []);
    assert!(feed.reorg(FINAL_DEPTH as usize).reorged);
    assert_eq!(state(&feed, 1), PaymentState::Broadcast);
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1, "to be sent again");
}

#[test]
fn coins_spent_elsewhere_end_a_payment() {
    let mut feed = Feed::new();
    let coin = feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let rival = spend(OutPoint::new(coin.compute_txid(), 0), &stranger(), 90_000);
    let by = rival.compute_txid();
    feed.show(&[&rival]);
    assert_eq!(state(&feed, 1), PaymentState::Replaced { by });
    feed.mine(&[&rival]);
    assert_eq!(state(&feed, 1), PaymentState::Conflicted { by });
    assert_eq!(feed.state.reserved_sat().unwrap(), 0);
    feed.reorg(1);
    assert_ne!(state(&feed, 1), PaymentState::Conflicted { by });
}

/// What these payments pay in all, and for what fees.
fn sums(feed: &Feed, ids: &[u8]) -> (u64, u64) {
    let paid: Vec<_> = ids.iter().map(|&id| payment(feed, id)).collect();
    (paid.iter().map(|p| p.sat).sum(), paid.iter().filter_map(|p| p.fee_sat).sum())
}

fn fee_of(state: &State, tx: &Transaction) -> u64 {
    state.wallet.calculate_fee(tx).unwrap().to_sat()
}

#[test]
fn a_batch_is_one_transaction_in_which_each_payment_has_its_part() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    // Two are alike: each has an output of its own.
    let batch = [terms(1, 10_000), terms(2, 10_000), terms(3, 7_000)];
    let now_ms = feed.now_ms();
    let paid = feed.state.pay_all(&batch, &FEE, now_ms).unwrap();
    let tx = transaction(&feed, 1);
    assert!(paid.iter().all(|p| p.txid == Some(tx.compute_txid()) && p.state == PaymentState::Signed));
    let vouts: HashSet<_> = paid.iter().map(|p| p.vout.unwrap()).collect();
    assert_eq!(vouts.len(), 3);
    assert!(paid.iter().all(|p| tx.output[p.vout.unwrap() as usize].value.to_sat() == p.sat));
    assert_eq!(sums(&feed, &[1, 2, 3]), (27_000, fee_of(&feed.state, &tx)), "the parts of the fee are the fee");
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1);
    let mut feed = feed.reopen();
    assert_eq!(feed.state.pay_all(&batch, &FEE, now_ms).unwrap(), paid, "asked again, nothing is paid again");
    feed.mine(&[&tx]);
    assert!([1, 2, 3].iter().all(|&id| matches!(state(&feed, id), PaymentState::Confirmed { depth: 1, .. })));
    assert_eq!(feed.state.paid_by().unwrap()[&tx.compute_txid()].len(), 3);
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let now_ms = feed.now_ms();
    let refused = |feed: &mut Feed, batch: &[Terms]| feed.state.pay_all(batch, &FEE, now_ms).unwrap_err();
    let dust = refused(&mut feed, &[terms(1, 10_000), terms(2, 100)]);
    assert!(matches!(dust, PayError::Dust { .. }), "{dust}");
    let short = refused(&mut feed, &[terms(1, 60_000), terms(2, 60_000)]);
    assert!(matches!(short, PayError::Short { .. }), "{short}");
    let twice = refused(&mut feed, &[terms(1, 1_000), terms(1, 1_000)]);
    assert!(matches!(twice, PayError::Count { .. }), "{twice}");
    assert!(matches!(refused(&mut feed, &[]), PayError::Count { found: 0 }));
    assert_eq!(feed.state.payment(PaymentId([1; 32])).unwrap(), None);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let partly = refused(&mut feed, &[terms(1, 10_000), terms(2, 10_000)]);
    assert!(matches!(partly, PayError::PartlyPaid), "{partly}");
    assert_eq!(feed.state.payment(PaymentId([2; 32])).unwrap(), None);
}

#[test]
fn a_bump_pays_the_same_from_less_change() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let batch = [terms(1, 10_000), terms(2, 20_000)];
    let now_ms = feed.now_ms();
    feed.state.pay_all(&batch, &FEE, now_ms).unwrap();
    let old = transaction(&feed, 1);
    feed.show(&[&old]);
    let looked = feed.state.look_at_bump(old.compute_txid(), Some(FeeRate::from_sat_per_vb_u32(7)), &FEE).unwrap();
    assert_eq!((looked.txid, state(&feed, 1)), (None, PaymentState::Broadcast), "looking changes nothing");
    let bumped = bump(&mut feed, old.compute_txid(), 7).unwrap();
    let new = transaction(&feed, 2);
    assert_eq!((bumped.txid, bumped.replaces), (Some(new.compute_txid()), old.compute_txid()));
    assert_eq!((bumped.amount_sat, bumped.old_fee_sat, bumped.fee_sat), (30_000, looked.old_fee_sat, looked.fee_sat));
    assert_eq!(bumped.fee_sat, fee_of(&feed.state, &new));
    assert_eq!(sums(&feed, &[1, 2]), (30_000, bumped.fee_sat));
    let inputs = |tx: &Transaction| tx.input.iter().map(|input| input.previous_output).collect::<Vec<_>>();
    assert_eq!(inputs(&old), inputs(&new));
    let payees = |tx: &Transaction| {
        let script = stranger().script_pubkey();
        let mut sat: Vec<_> =
            tx.output.iter().filter(|o| o.script_pubkey == script).map(|o| o.value.to_sat()).collect();
        sat.sort_unstable();
        sat
    };
    assert_eq!((payees(&old), payees(&new)), (vec![10_000, 20_000], vec![10_000, 20_000]));
    assert_eq!(feed.state.reserved_sat().unwrap(), 30_000 + bumped.fee_sat);
    assert_eq!(feed.state.wallet.balance().total().to_sat(), 70_000 - bumped.fee_sat);
    let mut feed = feed.reopen();
    assert_eq!(feed.state.live_transactions().unwrap().len(), 1, "only the newest is sent");
    assert_eq!(transaction(&feed, 1), new);
    // The old name still finds it.
    assert_eq!(bump(&mut feed, old.compute_txid(), 9).unwrap().replaces, new.compute_txid());
}

#[test]
fn whichever_version_is_mined_is_the_payment() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let old = transaction(&feed, 1);
    feed.show(&[&old]);
    bump(&mut feed, old.compute_txid(), 9).unwrap();
    let new = transaction(&feed, 1);
    // The server took the new one badly and goes on naming the old one.
    feed.show(&[&old]);
    assert_eq!((state(&feed, 1), payment(&feed, 1).txid), (PaymentState::Signed, Some(new.compute_txid())));
    assert_eq!(feed.state.wallet.balance().total().to_sat(), 90_000 - fee_of(&feed.state, &new));
    feed.mine(&[&old]);
    let mined = payment(&feed, 1);
    assert_eq!((mined.txid, mined.fee_sat), (Some(old.compute_txid()), Some(281)), "an older one was mined");
    assert!(matches!(mined.state, PaymentState::Confirmed { depth: 1, .. }));
    assert!(matches!(bump(&mut feed, old.compute_txid(), 20), Err(BumpError::Confirmed { height: 2 })));
    feed.reorg(1);
    assert_eq!((state(&feed, 1), payment(&feed, 1).txid), (PaymentState::Broadcast, Some(old.compute_txid())));
    feed.mine(&[&new]);
    assert_eq!(payment(&feed, 1).txid, Some(new.compute_txid()));
    assert!(matches!(state(&feed, 1), PaymentState::Confirmed { depth: 1, .. }));
}

#[test]
fn a_bump_is_refused_where_it_would_break_something() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let nobody = Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
    assert!(matches!(bump(&mut feed, nobody, 5), Err(BumpError::Unknown)));
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let txid = payment(&feed, 1).txid.unwrap();
    assert!(matches!(bump(&mut feed, txid, 2), Err(BumpError::RateTooLow { least_sat_vb: 4 })));
    let above = bump(&mut feed, txid, 101).unwrap_err();
    assert!(matches!(above, BumpError::AboveCeiling { rate_sat_vb: 101, ceiling_sat_vb: 100 }), "{above}");
    let now_ms = feed.now_ms();
    let limit = feed.state.bump(txid, None, &Fee { rate: FeeRate::from_sat_per_vb_u32(90), ..FEE }, now_ms);
    assert!(matches!(limit, Err(BumpError::Pay(PayError::FeeAboveLimit { max_fee_sat: 1_000, .. }))));
    pay(&mut feed, &terms(2, 10_000)).unwrap();
    let by = payment(&feed, 2).txid.unwrap();
    assert!(matches!(bump(&mut feed, txid, 9), Err(BumpError::Spent { by: child }) if child == by));
    bump(&mut feed, by, 9).unwrap();
    assert_eq!(payment(&feed, 1).txid, Some(txid), "nothing happened to it");
}

#[test]
fn a_bumped_payments_change_waits_for_its_block() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    pay(&mut feed, &terms(1, 10_000)).unwrap();
    let old = payment(&feed, 1).txid.unwrap();
    bump(&mut feed, old, 9).unwrap();
    let short = pay(&mut feed, &terms(2, 10_000)).unwrap_err();
    assert!(matches!(short, PayError::Short { have_sat: 0, .. }), "{short}");
    let new = transaction(&feed, 1);
    feed.mine(&[&new]);
    pay(&mut feed, &terms(2, 10_000)).unwrap();
}

#[test]
fn nothing_is_signed_above_the_ceiling() {
    let mut feed = Feed::new();
    feed.fund(50_000);
    let (mut signed, mut above) = (0, 0);
    for ceiling in [1, 2, 50, 100] {
        let fee = Fee { rate: FeeRate::MAX, ceiling: FeeRate::from_sat_per_vb_u32(ceiling), max_sat: u64::MAX };
        // Leftovers from nothing to more than change is worth.
        for left in (0..20_000_u64).step_by(250) {
            match feed.state.build_and_sign(&[terms(1, 50_000 - left)], &fee) {
                Ok((tx, fee_sat)) => {
                    let vbytes = tx.vsize() as u64;
                    // At the lowest rate a signature may turn out a byte shorter.
                    let most = if ceiling == 1 { vbytes + 1 } else { vbytes * u64::from(ceiling) };
                    assert!(fee_sat <= most, "{fee_sat} sat for {vbytes} vB");
                    signed += 1;
                }
                Err(PayError::Short { .. }) => {}
                Err(PayError::AboveCeiling { ceiling_sat_vb, .. }) => {
                    assert_eq!(ceiling_sat_vb, u64::from(ceiling));
                    above += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("signed: {signed}, refused: {above}");
    assert!(signed > 200 && above <= 4, "refused only where a few sat are left over");
}

#[test]
fn a_wallet_of_the_first_schema_keeps_its_payments() {
    let mut feed = Feed::new();
    feed.fund(100_000);
    let paid = pay(&mut feed, &terms(1, 10_000)).unwrap();
    // As the first schema had it.
    feed.state
        .db
        .execute_batch(
            "ALTER TABLE pedlar_payments ADD COLUMN txid BLOB; ALTER TABLE pedlar_payments ADD COLUMN vout INTEGER;
             ALTER TABLE pedlar_payments ADD COLUMN raw BLOB; ALTER TABLE pedlar_payments ADD COLUMN fee_sat INTEGER;
             UPDATE pedlar_payments SET (txid, vout, fee_sat) = (SELECT txid, vout, fee_sat FROM pedlar_versions);
             UPDATE pedlar_payments SET raw = (SELECT raw FROM pedlar_transactions);
             ALTER TABLE pedlar_payments DROP COLUMN version;
             DROP TABLE pedlar_versions; DROP TABLE pedlar_transactions;
             ALTER TABLE pedlar_addresses DROP COLUMN given_height; 
             DROP TABLE pedlar_ended; DROP TABLE pedlar_ends; DROP TABLE pedlar_channels;
             ALTER TABLE pedlar_wallet DROP COLUMN channel_keys; PRAGMA user_version = 1;",
        )
        .unwrap();
    let feed = feed.reopen();
    assert_eq!(payment(&feed, 1), paid);
    assert_eq!(transaction(&feed, 1).compute_txid(), paid.txid.unwrap());
}
