//! The wallet against the embedded chain, over real sockets.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::{Address, Amount};
use pedlar_devnet::chain::Chain;
use pedlar_devnet::electrum::ElectrumServer;
use pedlar_tests::cluster::{self, PATIENCE};
use pedlar_wallet::{
    FINAL_DEPTH, Incoming, IncomingState, Network, PayError, PayeeRef, PaymentId, PaymentState, ServerFault,
    ServerState, WalletConfig, WalletEvent, WalletHandle, Words,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

const PAYEE: PayeeRef = PayeeRef([9; 32]);
/// Until when payees keep their address: longer than any test.
const FOREVER_MS: u64 = 1 << 50;

/// One chain, its server, and wallets that look at it ten times a second.
pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) server: ElectrumServer,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new(tag: &str) -> Self {
        let chain = Chain::new(tag.as_bytes());
        let server = ElectrumServer::spawn(chain.clone(), "127.0.0.1:0").await.unwrap();
        Self { chain, server, dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self, dir: &Path) -> WalletConfig {
        let url = self.server.url().parse().unwrap();
        let mut config = WalletConfig::new(Network::Regtest, dir.to_owned(), vec![url]);
        config.poll = Duration::from_millis(100);
        config
    }

    fn open(&self, name: &str, words: &Words) -> (WalletHandle, mpsc::Receiver<WalletEvent>) {
        WalletHandle::open(self.config(&self.dir.path().join(name)), words.keys()).unwrap()
    }

    /// A wallet with `coins` confirmed coins of a million sat each.
    pub(crate) async fn rich(&self, name: &str, words: &Words, coins: u64) -> WalletHandle {
        let (wallet, _) = self.open(name, words);
        for coin in 1..=coins {
            let address = wallet.receive_address().await.unwrap();
            self.chain.fund(&address, Amount::from_sat(1_000_000)).unwrap();
            until("the coin is seen", async || wallet.status().borrow().pending_sat == coin * 1_000_000).await;
        }
        self.chain.mine_to_self(1);
        until("the coins are there", async || wallet.status().borrow().confirmed_sat == coins * 1_000_000).await;
        wallet
    }
}

/// An address that isn't ours.
pub(crate) fn somebody() -> Address {
    Network::Regtest.parse_address("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    cluster::until(what, async || holds().await.then_some(())).await;
}

/// Reads events until one tells that the payment to [`PAYEE`] is in a state that `wanted` accepts.
async fn incoming(events: &mut mpsc::Receiver<WalletEvent>, wanted: impl Fn(&Incoming) -> bool) -> Incoming {
    let found = async {
        loop {
            match events.recv().await.expect("the wallet runs") {
                WalletEvent::Incoming(incoming) if wanted(&incoming) => return incoming,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the payment is reported")
}

fn depth(incoming: &Incoming) -> u32 {
    match incoming.state {
        IncomingState::Confirmed { depth, .. } => depth,
        _ => 0,
    }
}

async fn state(wallet: &WalletHandle, id: PaymentId) -> PaymentState {
    wallet.payment(id).await.unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_made_seen_and_buried() {
    let world = World::new("a_payment_is_made_seen_and_buried").await;
    let payer = world.rich("payer", &Words::generate().unwrap(), 1).await;
    let (payee, mut events) = world.open("payee", &Words::generate().unwrap());
    let address = payee.address_for(PAYEE, FOREVER_MS).await.unwrap();
    let id = PaymentId([1; 32]);
    let fee_sat = payer.estimate_fee(50_000).await.unwrap();
    let payment = payer.pay(id, address.clone(), 50_000, fee_sat).await.unwrap();
    assert_eq!(payment.fee_sat, Some(fee_sat));

    let seen = incoming(&mut events, |i| i.state == IncomingState::Seen).await;
    assert_eq!((seen.payee, seen.sat, Some(seen.outpoint.txid)), (PAYEE, 50_000, payment.txid));
    until("the server has it", async || state(&payer, id).await == PaymentState::Broadcast).await;
    assert_eq!(payer.status().borrow().reserved_sat, 50_000 + fee_sat);
    for expected in 1..=FINAL_DEPTH {
        world.chain.mine_to_self(1);
        incoming(&mut events, |i| depth(i) == expected).await;
    }
    until("the payer knows", async || matches!(state(&payer, id).await, PaymentState::Final { .. })).await;
    let again = payer.pay(id, address, 50_000, 0).await.unwrap();
    assert_eq!(again.txid, payment.txid, "an id is paid once");
    let status = payer.status().borrow().clone();
    assert_eq!((status.confirmed_sat, status.pending_sat, status.reserved_sat), (1_000_000 - 50_000 - fee_sat, 0, 0));
    let history = payer.history().await.unwrap();
    assert_eq!((history.len(), history[0].fee_sat), (2, Some(fee_sat)));
    payer.shutdown().await;
    payer.history().await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_is_sent_after_a_crash() {
    let world = World::new("what_was_signed_is_sent_after_a_crash").await;
    let words = Words::generate().unwrap();
    let payer = world.rich("payer", &words, 1).await;
    let to = somebody();
    let id = PaymentId([2; 32]);

    world.server.pause();
    let is_down =
        async |wallet: &WalletHandle| matches!(wallet.status().borrow().servers[0].state, ServerState::Down(_));
    until("the wallet notices", async || is_down(&payer).await).await;
    let start = Instant::now();
    let payment = payer.pay(id, to.clone(), 50_000, 1_000).await.unwrap();
    payer.receive_address().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "no server is waited for: {:?}", start.elapsed());
    assert_eq!((payment.state, world.chain.mempool()), (PaymentState::Signed, vec![]));
    // All handles go without a word, as in a crash; the file is free when the thread has noticed.
    drop(payer);

    let (payer, mut events) = world.open("payer", &words);
    until("still down", async || is_down(&payer).await).await;
    assert_eq!(payer.pay(id, to, 50_000, 1_000).await.unwrap(), payment);
    world.server.resume();
    until("it was sent", async || world.chain.mempool() == [payment.txid.unwrap()]).await;
    world.chain.mine_to_self(FINAL_DEPTH);
    let last = async {
        loop {
            match events.recv().await.unwrap() {
                WalletEvent::Outgoing(p) if matches!(p.state, PaymentState::Final { .. }) => return p,
                _ => {}
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, last).await.unwrap().txid, payment.txid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_takes_the_depth_back_and_the_payment_comes_again() {
    let world = World::new("a_reorganisation_takes_the_depth_back").await;
    let payer = world.rich("payer", &Words::generate().unwrap(), 1).await;
    let (payee, mut events) = world.open("payee", &Words::generate().unwrap());
    let address = payee.address_for(PAYEE, FOREVER_MS).await.unwrap();
    let id = PaymentId([3; 32]);
    payer.pay(id, address, 50_000, 1_000).await.unwrap();
    incoming(&mut events, |i| i.state == IncomingState::Seen).await;
    for blocks in 1..=FINAL_DEPTH {
        world.chain.mine_to_self(blocks);
        incoming(&mut events, |i| depth(i) == blocks).await;
        world.chain.reorg(blocks).unwrap();
        incoming(&mut events, |i| i.state == IncomingState::Reorged).await;
        until("the payer knows", async || state(&payer, id).await == PaymentState::Broadcast).await;
    }
    world.chain.mine_to_self(FINAL_DEPTH);
    incoming(&mut events, |i| depth(i) == FINAL_DEPTH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_payments_at_once_choose_no_coin_twice() {
    const COINS: u64 = 8;
    const PAYMENTS: u8 = 40;
    let world = World::new("many_payments_at_once_choose_no_coin_twice").await;
    let payer = world.rich("payer", &Words::generate().unwrap(), COINS).await;
    let to = somebody();
    let asked = (1..=PAYMENTS).map(|id| {
        let (payer, to) = (payer.clone(), to.clone());
        tokio::spawn(async move { payer.pay(PaymentId([id; 32]), to, 100_000, 10_000).await.unwrap() })
    });
    let mut txids = Vec::new();
    for payment in asked.collect::<Vec<_>>() {
        txids.push(payment.await.unwrap().txid.unwrap());
    }
    until("all were sent", async || world.chain.mempool().len() == txids.len()).await;
    let mut spent = HashSet::new();
    for txid in &txids {
        let tx = world.chain.tx(txid).unwrap().tx;
        assert!(tx.input.iter().all(|input| spent.insert(input.previous_output)));
    }
    world.chain.mine_to_self(1);
    until("all are in a block", async || payer.status().borrow().reserved_sat == 0).await;
    let short = payer.pay(PaymentId([0; 32]), to, 8_000_000, 10_000).await.unwrap_err();
    assert!(matches!(short, PayError::Short { need_sat, .. } if need_sat > 8_000_000), "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_alone_bring_the_coins_back() {
    let world = World::new("words_alone_bring_the_coins_back").await;
    let words = Words::generate().unwrap();
    let wallet = world.rich("old", &words, 1).await;
    // Payees that never pay, and one far behind them that does.
    for payee in 0..150 {
        wallet.address_for(PayeeRef([payee; 32]), FOREVER_MS).await.unwrap();
    }
    let far = wallet.address_for(PayeeRef([200; 32]), FOREVER_MS).await.unwrap();
    world.chain.fund(&far, Amount::from_sat(70_000)).unwrap();
    let to = somebody();
    wallet.pay(PaymentId([4; 32]), to, 50_000, 1_000).await.unwrap();
    until("it was sent", async || world.chain.mempool().len() == 2).await;
    world.chain.mine_to_self(1);
    until("all is in a block", async || wallet.status().borrow().pending_sat == 0).await;
    let owned = wallet.status().borrow().confirmed_sat;

    let mut config = world.config(&world.dir.path().join("new"));
    config.restore = true;
    let (restored, _events) = WalletHandle::open(config, words.keys()).unwrap();
    until("the search is over", async || !restored.status().borrow().restoring).await;
    assert_eq!(restored.status().borrow().confirmed_sat, owned);
    assert_ne!(restored.receive_address().await.unwrap(), far);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_misses_steps_but_never_the_last() {
    let world = World::new("a_slow_reader_misses_steps_but_never_the_last").await;
    let (wallet, mut events) = world.open("wallet", &Words::generate().unwrap());
    let mut owed = HashSet::new();
    for payee in 0..40 {
        let address = wallet.address_for(PayeeRef([payee; 32]), FOREVER_MS).await.unwrap();
        owed.insert((PayeeRef([payee; 32]), world.chain.fund(&address, Amount::from_sat(1_000)).unwrap()));
    }
    let height = |blocks| world.chain.height() + blocks;
    for _ in 0..FINAL_DEPTH + 2 {
        let next = height(1);
        world.chain.mine_to_self(1);
        until("the block is known", async || wallet.status().borrow().tip_height == next).await;
    }
    while !owed.is_empty() {
        let last = incoming(&mut events, |i| depth(i) == FINAL_DEPTH).await;
        assert!(owed.remove(&(last.payee, last.outpoint.txid)), "final is said once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_is_recognised() {
    let (one, other) = (World::new("one chain").await, World::new("another chain").await);
    let words = Words::generate().unwrap();
    let (wallet, _events) = one.open("wallet", &words);
    until("the chain is known", async || wallet.block_1().await.unwrap() == one.chain.block_hash(1)).await;
    wallet.shutdown().await;
    let (wallet, _events) = WalletHandle::open(other.config(&one.dir.path().join("wallet")), words.keys()).unwrap();
    let refused = async || match &wallet.status().borrow().servers[0].state {
        ServerState::Down(ServerFault::OtherChain { expected, .. }) => Some(*expected) == one.chain.block_hash(1),
        _ => false,
    };
    until("the server is refused", refused).await;
    assert_eq!(wallet.block_1().await.unwrap(), one.chain.block_hash(1));
}
