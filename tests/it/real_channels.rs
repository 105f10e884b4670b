//! The life of payment channels on Bitcoin Core and electrs, between two wallets without nodes: its mempool takes every
//! transaction that opens or ends one, and what is taken back is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::consensus::encode::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid, Witness, bip32, ecdsa};
use pedlar_tests::cluster::until;
use pedlar_tests::real_chain::RealChain;
use pedlar_wallet::channel::{
    ChannelFact, ChannelId, EndError, Ending, Funding, Offer, Role, Shares, Terms, TxState, Voucher,
};
use pedlar_wallet::{Network, WalletConfig, WalletEvent, WalletHandle, Words};
use tempfile::TempDir;

const CAPACITY: u64 = 50_000;
/// What a buyer begins with.
const COIN: u64 = 10_000_000;
/// Where nobody listens.
const NO_SERVER: &str = "tcp://127.0.0.1:1";
/// Fundings in a row that are each paid with the change of the one before: Core takes 25 that wait.
const CHAIN: u8 = 20;

type Facts = Arc<Mutex<BTreeMap<ChannelId, ChannelFact>>>;

/// A wallet, and what it last told of each channel.
struct Side {
    words: Words,
    dir: TempDir,
    wallet: WalletHandle,
    facts: Facts,
}

impl Side {
    fn new(url: &str) -> Self {
        let (words, dir) = (Words::generate().unwrap(), tempfile::tempdir().unwrap());
        let (wallet, facts) = open(&words, &dir, url);
        Self { words, dir, wallet, facts }
    }

    /// Ends the wallet and opens it again, with this server.
    async fn reopen(&mut self, url: &str) {
        self.wallet.shutdown().await;
        (self.wallet, self.facts) = open(&self.words, &self.dir, url);
    }

    fn fact(&self, number: u8) -> Option<ChannelFact> {
        self.facts.lock().unwrap().get(&id(number)).cloned()
    }

    /// Waits until a channel's funding stands like that.
    async fn funding(&self, number: u8, wanted: impl Fn(TxState) -> bool) {
        let stands = async || self.fact(number).filter(|fact| wanted(fact.state));
        until(&format!("funding {number} stands as it should"), stands).await;
    }

    /// Waits until a channel's end is in a block.
    async fn ended(&self, number: u8) -> Shares {
        let end = async || {
            let end = self.fact(number)?.end?;
            matches!(end.state, TxState::Confirmed { .. }).then_some(end.shares)
        };
        until(&format!("channel {number} has ended"), end).await
    }
}

fn open(words: &Words, dir: &TempDir, url: &str) -> (WalletHandle, Facts) {
    let mut config = WalletConfig::new(Network::Regtest, dir.path().join("wallet"), vec![url.parse().unwrap()]);
    config.poll = Duration::from_millis(100);
    let (wallet, mut events) = WalletHandle::open(config, words.keys()).unwrap();
    let facts = Facts::default();
    let told = Arc::clone(&facts);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let WalletEvent::Channel(fact) = event {
                told.lock().unwrap().insert(fact.id, fact);
            }
        }
    });
    (wallet, facts)
}

fn id(number: u8) -> ChannelId {
    ChannelId([number; 32])
}

fn is_confirmed(state: TxState) -> bool {
    matches!(state, TxState::Confirmed { .. })
}

/// A buyer with a coin, a seller, and the chain.
struct Two {
    chain: RealChain,
    buyer: Side,
    seller: Side,
}

impl Two {
    /// `None`, said loudly, where the chain's executables are missing.
    async fn start() -> Option<Self> {
        let chain = RealChain::start().await?;
        let (buyer, seller) = (Side::new(&chain.url()), Side::new(&chain.url()));
        let two = Self { chain, buyer, seller };
        let address = two.buyer.wallet.receive_address().await.unwrap().to_string();
        two.chain.send(&two.chain.payment(&address, COIN, 2));
        two.chain.mine(1);
        let there = async || (two.buyer.wallet.status().borrow().confirmed_sat == COIN).then_some(());
        until("the buyer has its coin", there).await;
        Some(two)
    }

    async fn terms(&self, number: u8, expiry_height: u32) -> Terms {
        let buyer = self.buyer.wallet.channel_key(id(number), Role::Buyer).await.unwrap();
        let seller = self.seller.wallet.channel_key(id(number), Role::Seller).await.unwrap();
        Terms {
            buyer_pk: buyer.public_key,
            seller_pk: seller.public_key,
            capacity_sat: CAPACITY,
            expiry_height,
            change_spk: buyer.change_spk.unwrap(),
            close_fee_sat: 1_000,
        }
    }

    /// Opens a channel; its funding waits in Core's mempool, and both know.
    async fn open(&self, number: u8, expiry_height: u32) -> Funding {
        let terms = self.terms(number, expiry_height).await;
        let funding = self.buyer.wallet.fund_channel(id(number), terms.clone(), 10_000).await.unwrap();
        let watched =
            self.seller.wallet.watch_channel(id(number), terms, funding.raw.clone(), funding.outpoint.vout).await;
        assert_eq!(watched.unwrap(), funding.outpoint);
        self.waits(funding.outpoint.txid).await;
        self.seller.funding(number, |state| state == TxState::Unconfirmed).await;
        funding
    }

    /// Waits until Core has taken a transaction.
    async fn waits(&self, txid: Txid) {
        until("Core takes it", async || self.chain.mempool().contains(&txid).then_some(())).await;
    }

    async fn voucher(&self, number: u8, cum_sat: u64) -> (ChannelId, Voucher) {
        (id(number), self.buyer.wallet.sign_voucher(id(number), cum_sat).await.unwrap())
    }

    /// Opens these channels and has them in a block.
    async fn open_all(&self, numbers: std::ops::RangeInclusive<u8>, expiry_height: u32) {
        for number in numbers.clone() {
            self.open(number, expiry_height).await;
            if number % CHAIN == 0 || number == *numbers.end() {
                self.chain.mine(1);
                self.buyer.funding(number, is_confirmed).await;
            }
        }
        self.seller.funding(*numbers.end(), is_confirmed).await;
    }

    /// Closes these channels with one transaction, which Core takes and mines; its size for each, in vB.
    async fn close_all(&self, numbers: std::ops::RangeInclusive<u8>) -> f64 {
        let mut closes = Vec::new();
        for number in numbers.clone() {
            closes.push(self.voucher(number, 20_000).await);
        }
        let ending = self.seller.wallet.close_channels(closes, Some(3)).await.unwrap();
        self.mined(&ending).await;
        for number in numbers.clone() {
            assert_eq!(self.seller.ended(number).await, Shares::Closed { cum_sat: 20_000 });
            assert_eq!(self.buyer.ended(number).await, Shares::Closed { cum_sat: 20_000 });
        }
        ending.vbytes as f64 / numbers.count() as f64
    }

    async fn mined(&self, ending: &Ending) {
        self.waits(ending.txid).await;
        self.chain.mine(1);
        assert_eq!(self.chain.confirmations(ending.txid), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn core_relays_every_transaction_of_a_channel() {
    let Some(two) = Two::start().await else { return };
    let (near, far) = (160, 40_000);
    let open = two.open(1, far).await;
    two.chain.mine(1);
    two.seller.funding(1, is_confirmed).await;
    let vbytes = deserialize::<Transaction>(&open.raw).unwrap().vsize();
    println!("open: {vbytes} vB");

    let closes = vec![two.voucher(1, 30_000).await];
    let first = two.seller.wallet.close_channels(closes.clone(), Some(2)).await.unwrap();
    assert_eq!(two.seller.wallet.close_channels(closes, Some(5)).await.unwrap(), first);
    two.waits(first.txid).await;
    let mut last = first.clone();
    for _ in 0..3 {
        let raised = two.seller.wallet.raise_close(id(1), None).await.unwrap();
        two.waits(raised.txid).await;
        assert!(!two.chain.mempool().contains(&last.txid), "it took the place of the one before");
        last = raised;
    }
    two.mined(&last).await;
    println!("close: {} vB, raised 3 times from {} to {} sat", first.vbytes, first.fee_sat, last.fee_sat);
    for side in [&two.seller, &two.buyer] {
        assert_eq!(side.ended(1).await, Shares::Closed { cum_sat: 30_000 });
    }
    let share = async || (two.seller.wallet.status().borrow().confirmed_sat == 30_000 - last.fee_sat).then_some(());
    until("the seller has its share", share).await;

    two.open_all(2..=4, far).await;
    let offer = two.seller.wallet.settle_offer(id(2), Role::Seller, 20_000, Role::Seller, None).await.unwrap();
    let settled = two.buyer.wallet.sign_settle(id(2), Role::Buyer, offer.clone()).await.unwrap();
    let same = two.seller.wallet.sign_settle(id(2), Role::Seller, Offer { sig: settled.sig, ..offer }).await.unwrap();
    assert_eq!(same.ending, settled.ending, "either side sends it");
    two.mined(&settled.ending).await;
    let offer = two.buyer.wallet.settle_offer(id(3), Role::Buyer, 0, Role::Buyer, None).await.unwrap();
    let unused = two.seller.wallet.sign_settle(id(3), Role::Seller, offer).await.unwrap();
    two.mined(&unused.ending).await;
    println!("cooperative close: {} vB, unused: {} vB", settled.ending.vbytes, unused.ending.vbytes);
    let seller_sat = 20_000 - settled.ending.fee_sat;
    assert_eq!(two.seller.ended(2).await, Shares::Settled { buyer_sat: 30_000, seller_sat });
    assert_eq!(two.buyer.ended(2).await, Shares::Settled { buyer_sat: 30_000, seller_sat });
    let buyer_sat = CAPACITY - unused.ending.fee_sat;
    assert_eq!(two.buyer.ended(3).await, Shares::Settled { buyer_sat, seller_sat: 0 });

    // A voucher that is worth less than its close: a coin of the seller's pays.
    let closes = vec![two.voucher(4, 50).await];
    let small = two.seller.wallet.close_channels(closes, Some(4)).await.unwrap();
    two.mined(&small).await;
    assert_eq!(two.seller.ended(4).await, Shares::Closed { cum_sat: 50 });
    println!("close with a coin for the fee: {} vB", small.vbytes);

    two.open_all(5..=5, near).await;
    two.voucher(5, 30_000).await;
    let early = two.buyer.wallet.refund_channel(id(5), None).await;
    assert!(matches!(early, Err(EndError::TooEarly { .. })), "{early:?}");
    two.chain.mine(u64::from(near));
    until("it is time", async || (two.buyer.wallet.status().borrow().tip_height >= near).then_some(())).await;
    let refund = two.buyer.wallet.refund_channel(id(5), None).await.unwrap();
    two.waits(refund.txid).await;
    let dearer = two.buyer.wallet.refund_channel(id(5), Some(20)).await.unwrap();
    two.mined(&dearer).await;
    assert_eq!(two.seller.ended(5).await, Shares::Refunded);
    println!("refund: {} vB", refund.vbytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn core_relays_a_close_of_many_channels() {
    let Some(two) = Two::start().await else { return };
    two.open_all(1..=60, 40_000).await;
    let ten = two.close_all(1..=10).await;
    let fifty = two.close_all(11..=60).await;
    println!("batch close of 10: {ten:.1} vB each, of 50: {fifty:.1} vB each");
    assert!(ten < 133.0 && fifty < 130.0);
    let left = async || (two.buyer.wallet.status().borrow().channels_sat == 0).then_some(());
    until("nothing of the buyer's is locked up", left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_funding_that_is_replaced_or_reorganised_away_is_told() {
    let Some(mut two) = Two::start().await else { return };
    let funding = two.open(1, 40_000).await;
    let rival = rival(&two.buyer.words, &deserialize(&funding.raw).unwrap());
    let by = rival.compute_txid();
    two.chain.send(&rival);
    assert_eq!(two.chain.mempool(), [by], "it is replaced");
    two.buyer.funding(1, |state| state == TxState::Replaced { by }).await;
    two.seller.funding(1, |state| state == TxState::Unseen).await;
    two.chain.mine(1);
    two.buyer.funding(1, |state| state == TxState::Conflicted { by }).await;
    let url = two.chain.url();
    two.buyer.reopen(&url).await;
    two.buyer.funding(1, |state| state == TxState::Conflicted { by }).await;
    assert_eq!(two.buyer.wallet.status().borrow().channels_sat, 0);

    let address = two.buyer.wallet.receive_address().await.unwrap().to_string();
    two.chain.send(&two.chain.payment(&address, COIN, 2));
    two.chain.mine(1);
    let there = async || (two.buyer.wallet.status().borrow().confirmed_sat >= COIN).then_some(());
    until("the buyer has another coin", there).await;
    two.open_all(2..=2, 40_000).await;
    two.chain.reorg(1);
    for side in [&two.buyer, &two.seller] {
        side.funding(2, |state| state == TxState::Unconfirmed).await;
    }
    two.chain.mine(1);
    for side in [&two.buyer, &two.seller] {
        side.funding(2, is_confirmed).await;
    }
    let closes = vec![two.voucher(2, 30_000).await];
    // No server can be reached, and the seller ends: what it signed is sent when there is one.
    two.seller.reopen(NO_SERVER).await;
    let close = two.seller.wallet.close_channels(closes.clone(), None).await.unwrap();
    two.seller.reopen(&url).await;
    assert_eq!(two.seller.wallet.close_channels(closes, None).await.unwrap(), close);
    two.mined(&close).await;
    two.buyer.ended(2).await;
    two.chain.reorg(1);
    let waits_again = async |side: &Side| {
        let end = async || side.fact(2)?.end.filter(|end| end.state == TxState::Unconfirmed);
        until("the close waits again", end).await;
    };
    waits_again(&two.buyer).await;
    waits_again(&two.seller).await;
    two.chain.mine(1);
    for side in [&two.buyer, &two.seller] {
        assert_eq!(side.ended(2).await, Shares::Closed { cum_sat: 30_000 });
    }
    println!("faults fired: 1 replacement, 2 reorganisations, 1 outage");
}

/// What the owner of these words might sign elsewhere: the coin of a funding goes back to its first address, dearly.
fn rival(words: &Words, funding: &Transaction) -> Transaction {
    let secp = Secp256k1::new();
    let seed = bip39::Mnemonic::parse(words.phrase().as_str()).unwrap().to_seed("");
    let master = bip32::Xpriv::new_master(bitcoin::Network::Regtest, &seed).unwrap();
    let path: bip32::DerivationPath = "m/84'/1'/0'/0/0".parse().unwrap();
    let key = master.derive_priv(&secp, &path).unwrap().private_key;
    let public = bitcoin::PublicKey::new(key.public_key(&secp));
    let spk = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap());
    let coin: OutPoint = funding.input[0].previous_output;
    let mut tx = funding.clone();
    tx.output.truncate(1);
    tx.output[0] = bitcoin::TxOut { value: Amount::from_sat(COIN - 10_000), script_pubkey: spk.clone() };
    assert_eq!((tx.input.len(), tx.input[0].previous_output), (1, coin));
    let hash = SighashCache::new(&tx).p2wpkh_signature_hash(0, &spk, Amount::from_sat(COIN), EcdsaSighashType::All);
    let signature = secp.sign_ecdsa(&Message::from_digest(hash.unwrap().to_byte_array()), &key);
    tx.input[0].witness = Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &public.inner);
    tx
}
