//! What the network takes, and what a wallet does about it (CHECKS R18): never more than the ceiling, never a coin twice,
//! and a payment that is stuck is made dearer, not made again.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use bitcoin::{Amount, FeeRate, Transaction, Txid};
use pedlar_devnet::chain::Chain;
use pedlar_tests::cluster::{Tab, agreed, number, path, text, until};
use pedlar_tests::lying_electrum::{Lie, LyingElectrum};
use pedlar_wallet::{BumpError, Network, PayError, PaymentId, PaymentState, WalletConfig, WalletHandle, Words};

use crate::wallet::{World as Wallets, somebody};
use crate::{MIB, PRICE, world};

/// The owner's ceiling in these stories, in sat/vB.
const CEILING: u64 = 60;

/// The fee that a transaction of these wallets pays, and the most that it may.
fn fee_and_ceiling(chain: &Chain, txid: Txid) -> (u64, u64) {
    let tx = chain.tx(&txid).expect("the chain has it").tx;
    let value = |tx: &Transaction| tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>();
    let spent = |tx: &Transaction| {
        let coin =
            |point: &bitcoin::OutPoint| chain.tx(&point.txid).expect("its parent").tx.output[point.vout as usize].value;
        tx.input.iter().map(|input| coin(&input.previous_output).to_sat()).sum::<u64>()
    };
    let most = FeeRate::from_sat_per_vb(CEILING).expect("a rate").fee_wu(tx.weight()).expect("a fee");
    (spent(&tx) - value(&tx), most.to_sat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fee_spike_of_a_hundred_times_lifts_no_fee_above_the_ceiling() {
    let wallets = Wallets::new("a_fee_spike").await;
    let server = LyingElectrum::before(wallets.server.local_addr()).await;
    let mut config =
        WalletConfig::new(Network::Regtest, wallets.dir.path().join("payer"), vec![server.url().parse().unwrap()]);
    (config.poll, config.max_fee_rate_sat_vb) = (Duration::from_millis(100), CEILING);
    let words = Words::generate().unwrap();
    let open = || WalletHandle::open(config.clone(), words.keys()).unwrap().0;
    let payer = open();
    let coins = payer.receive_address().await.unwrap();
    for _ in 0..3 {
        wallets.chain.fund(&coins, Amount::from_sat(200_000)).unwrap();
    }
    wallets.chain.mine_to_self(1);
    until("the coins are there", async || (payer.status().borrow().confirmed_sat == 600_000).then_some(())).await;
    let calm = payer.pay(PaymentId([1; 32]), somebody(), 50_000, 10_000).await.unwrap();
    assert_eq!(payer.estimate_fee(50_000).await.unwrap(), calm.fee_sat.unwrap(), "a sat for each virtual byte");
    payer.shutdown().await;

    // 100 sat/vB instead of 1; the fee is asked for when the wallet connects.
    server.lie(Lie::Fee(0.001));
    let payer = open();
    let spiked = async || (payer.estimate_fee(50_000).await.unwrap() > 10 * calm.fee_sat.unwrap()).then_some(());
    until("the wallet knows the new fee", spiked).await;
    assert!(server.told() > 0);
    // The stuck one, before its change is spent, is made as dear as the ceiling allows and no dearer.
    let above = payer.bump(calm.txid.unwrap(), Some(CEILING + 1), 100_000).await.unwrap_err();
    assert!(matches!(above, BumpError::AboveCeiling { ceiling_sat_vb: CEILING, .. }), "{above}");
    let bumped = payer.bump(calm.txid.unwrap(), Some(CEILING), 100_000).await.unwrap();
    let too_dear = payer.pay(PaymentId([2; 32]), somebody(), 50_000, 1_000).await.unwrap_err();
    assert!(matches!(too_dear, PayError::FeeAboveLimit { max_fee_sat: 1_000, .. }), "{too_dear}");
    let dear = payer.pay(PaymentId([2; 32]), somebody(), 50_000, 100_000).await.unwrap();
    let sent = BTreeSet::from([dear.txid.unwrap(), bumped.txid.unwrap()]);
    until("both are sent", async || (BTreeSet::from_iter(wallets.chain.mempool()) == sent).then_some(())).await;
    for txid in sent {
        let (fee, most) = fee_and_ceiling(&wallets.chain, txid);
        assert!(fee <= most && fee * 10 > most * 9, "{fee} sat where {most} may be");
    }
    wallets.chain.mine_to_self(1);
    let paid = async || {
        let state = payer.payment(PaymentId([1; 32])).await.unwrap().unwrap();
        (state.txid == bumped.txid && matches!(state.state, PaymentState::Confirmed { .. })).then_some(())
    };
    until("the bumped payment is made", paid).await;
    println!("faults fired: {} spiked fees", server.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_spends_at_once_choose_no_coin_twice() {
    const SPENDS: u16 = 1_000;
    const COINS: u64 = 50;
    let wallets = Wallets::new("a_thousand_spends").await;
    let payer = wallets.rich("payer", &Words::generate().unwrap(), COINS).await;
    let id = |n: u16| PaymentId([n.to_be_bytes(); 16].concat().try_into().unwrap());
    let begun = Instant::now();
    let asked = (0..SPENDS).map(|n| {
        let payer = payer.clone();
        tokio::spawn(async move { payer.pay(id(n), somebody(), 10_000, 10_000).await })
    });
    let mut paid = HashSet::new();
    for asked in asked.collect::<Vec<_>>() {
        paid.insert(asked.await.unwrap().unwrap().txid.unwrap());
    }
    println!("{SPENDS} payments signed in {:.1?}", begun.elapsed());
    assert_eq!(paid.len(), usize::from(SPENDS));
    let mut mined = Instant::now();
    let all_mined = async || {
        if mined.elapsed() > Duration::from_secs(1) && !wallets.chain.mempool().is_empty() {
            wallets.chain.mine_to_self(1);
            mined = Instant::now();
        }
        (payer.status().borrow().reserved_sat == 0).then_some(())
    };
    until("all are in blocks", all_mined).await;
    let mut spent = HashSet::new();
    for txid in &paid {
        let tx = wallets.chain.tx(txid).expect("it is in a block").tx;
        assert!(tx.input.iter().all(|input| spent.insert(input.previous_output)), "a coin is spent twice");
        let (fee, most) = fee_and_ceiling(&wallets.chain, *txid);
        assert!(fee <= most, "{fee} sat where {most} may be");
    }
    let fees: u64 = paid.iter().map(|txid| fee_and_ceiling(&wallets.chain, *txid).0).sum();
    let left = COINS * 1_000_000 - u64::from(SPENDS) * 10_000 - fees;
    assert_eq!(payer.status().borrow().confirmed_sat, left);
    println!(
        "faults fired: {SPENDS} spends at once, {} coins spent, none twice, all in blocks after {:.1?}",
        spent.len(),
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_advance_is_bumped_and_credited_once_whichever_version_is_mined() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let films = [world.file("one", MIB), world.file("other", MIB)];
    let mut paid = Tab::default();
    for (n, film) in films.iter().enumerate() {
        let link = format!("{}?addr={}", seller.publish(film, PRICE).await, seller.addr());
        let dest = world.path(&format!("bought-{n}"));
        world.mine_by_hand();
        // More than what is left of the first advance carries.
        let mut get = match n {
            0 => buyer.begin(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"]),
            _ => buyer.begin(&["account", "pay", &seller.id, "1000sat", "--yes"]),
        };
        let old: Txid = text(&get.reaches("payment").await["txid"]).parse().unwrap();
        let stuck = world.waiting_tx().await;
        assert_eq!(stuck, old);
        let raw = world.chain.tx(&old).expect("it waits").tx;
        let bumped = buyer.one(&["wallet", "bump", &old.to_string(), "--fee-rate", "9", "--yes"], "bumped").await;
        let new: Txid = text(&bumped["txid"]).parse().unwrap();
        assert_ne!(new, old);
        until("the old one is replaced", async || (world.chain.mempool() == [new]).then_some(())).await;
        assert_eq!(seller.tab(&buyer.id, "sold").await.paid, paid.paid, "neither counts before it is in a block");
        // The second time a miner has kept the old one.
        let mined = if n == 0 { new } else { old };
        match n {
            0 => drop(world.chain.mine_to_self(1)),
            _ => drop(world.chain.mine_with(&[raw]).unwrap()),
        }
        get.succeeds().await;
        paid.paid += 1_000_000;
        let counted = async || (seller.tab(&buyer.id, "sold").await.paid == paid.paid).then_some(());
        until("the seller counts it", counted).await;
        let both = agreed(&seller, &buyer).await;
        assert_eq!(both.paid, paid.paid, "credited once");
        world.chain.mine_to_self(6);
        until("it is final", async || {
            let history = buyer.ask(&["wallet", "history"]).await;
            let sent: Vec<_> =
                history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0).collect();
            (sent.len() == n + 1 && sent.iter().any(|line| line["txid"] == mined.to_string())).then_some(())
        })
        .await;
        assert_eq!(agreed(&seller, &buyer).await.paid, paid.paid, "still once");
        assert_eq!(seller.balance().await * 1_000, paid.paid);
    }
    println!("faults fired: 2 replacements");
}
