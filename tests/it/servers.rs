//! Several Electrum servers: whatever is wrong with one, the wallet goes on with the next (CHECKS R16, as far as a server
//! that is believed about the chain can be found out).

use std::time::Duration;

use bitcoin::Amount;
use pedlar_devnet::chain::Chain;
use pedlar_devnet::electrum::ElectrumServer;
use pedlar_tests::cluster::{Peer, text, until};
use pedlar_tests::lying_electrum::{Lie, LyingElectrum};
use pedlar_wallet::{
    Network, PaymentId, ServerFault, ServerState, ServerStatus, WalletConfig, WalletHandle, WalletStatus, Words,
};
use serde_json::Value;

use crate::{MIB, PRICE, world};

/// A wallet with a coin, whose first server can lie and whose second one is honest.
struct Doubt {
    chain: Chain,
    liar: LyingElectrum,
    wallet: WalletHandle,
    _honest: [ElectrumServer; 2],
    _dir: tempfile::TempDir,
}

impl Doubt {
    async fn new(tag: &str) -> Self {
        let chain = Chain::new(tag.as_bytes());
        let spawn = || ElectrumServer::spawn(chain.clone(), "127.0.0.1:0");
        let honest = [spawn().await.unwrap(), spawn().await.unwrap()];
        let liar = LyingElectrum::before(honest[0].local_addr()).await;
        let servers = vec![liar.url().parse().unwrap(), honest[1].url().parse().unwrap()];
        let dir = tempfile::tempdir().unwrap();
        let mut config = WalletConfig::new(Network::Regtest, dir.path().to_owned(), servers);
        config.poll = Duration::from_millis(100);
        let (wallet, _events) = WalletHandle::open(config, Words::generate().unwrap().keys()).unwrap();
        let address = wallet.receive_address().await.unwrap();
        chain.fund(&address, Amount::from_sat(1_000_000)).unwrap();
        chain.mine_to_self(1);
        let doubt = Self { chain, liar, wallet, _honest: honest, _dir: dir };
        doubt.until("the coin is there", |status| status.confirmed_sat == 1_000_000).await;
        doubt.until("the first server is in use", |status| status.servers[0].state == ServerState::Up).await;
        doubt
    }

    async fn until(&self, what: &str, holds: impl Fn(&WalletStatus) -> bool) {
        until(what, async || holds(&self.wallet.status().borrow()).then_some(())).await;
    }

    /// Waits until the second server is in use, and the first one set aside; why it was.
    async fn second_in_use(&self) -> ServerFault {
        until("the wallet goes on with the second server", async || match &self.wallet.status().borrow().servers[..] {
            [ServerStatus { state: ServerState::Down(fault), .. }, second] if second.state == ServerState::Up => {
                Some(fault.clone())
            }
            _ => None,
        })
        .await
    }

    /// Pays, and waits until the payment is in a block.
    async fn pay(&self, id: u8) {
        let id = PaymentId([id; 32]);
        let address = Network::Regtest.parse_address("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").unwrap();
        let txid = self.wallet.pay(id, address, 10_000, 1_000).await.unwrap().txid.unwrap();
        until("it was sent", async || self.chain.mempool().contains(&txid).then_some(())).await;
        self.chain.mine_to_self(1);
        self.until("it is in a block", |status| status.reserved_sat == 0).await;
    }
}

/// The wallet notices by itself, with nothing to send.
async fn leaves(lie: Lie, expected: fn(&ServerFault) -> bool) -> u64 {
    let doubt = Doubt::new(&format!("{lie:?}")).await;
    doubt.liar.lie(lie);
    let fault = doubt.second_in_use().await;
    assert!(expected(&fault), "{lie:?}: {fault}");
    doubt.pay(1).await;
    doubt.liar.told()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_drips_or_babbles_is_left_for_the_next() {
    let (stall, drip, garbage, huge, headers) = tokio::join!(
        leaves(Lie::Stall, |fault| *fault == ServerFault::Timeout),
        leaves(Lie::Drip, |fault| *fault == ServerFault::Timeout),
        leaves(Lie::Garbage, |fault| *fault == ServerFault::Misbehaved),
        leaves(Lie::Huge, |fault| *fault == ServerFault::Misbehaved),
        leaves(Lie::Headers, |fault| *fault == ServerFault::Misbehaved),
    );
    let told = [stall, drip, garbage, huge, headers];
    assert!(told.iter().all(|&told| told > 0), "{told:?}");
    println!("faults fired: {}", told.iter().sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_behind_is_left_when_another_one_is_ahead() {
    let doubt = Doubt::new("a_server_that_stays_behind").await;
    doubt.liar.lie(Lie::Frozen);
    doubt.chain.mine_to_self(2);
    // Nobody is left for two blocks; the second server was looked at and is two ahead.
    let ahead = doubt.chain.height();
    doubt.until("the second server was looked at", |status| status.servers[1].tip == Some(ahead)).await;
    assert_eq!(doubt.wallet.status().borrow().servers[0].state, ServerState::Up);
    doubt.chain.mine_to_self(1);
    assert_eq!(doubt.second_in_use().await, ServerFault::Behind { blocks: 3 });
    doubt.pay(1).await;
    // Looked at again, it is still behind; when it has caught up, it stands by.
    doubt.until("it stays set aside", |status| matches!(status.servers[0].state, ServerState::Down(_))).await;
    doubt.liar.lie(Lie::None);
    doubt.until("it stands by", |status| status.servers[0].state == ServerState::Standby).await;
    println!("faults fired: {}", doubt.liar.told());
    assert!(doubt.liar.told() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_a_server_swallows_is_sent_to_another_one() {
    let doubt = Doubt::new("a_payment_that_a_server_swallows").await;
    doubt.liar.lie(Lie::Swallow);
    doubt.pay(1).await;
    assert_eq!(doubt.second_in_use().await, ServerFault::Omits);
    println!("faults fired: {}", doubt.liar.told());
    assert!(doubt.liar.told() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_with_its_second_server_and_says_how_each_of_them_is() {
    let world = world().await;
    let second = ElectrumServer::spawn(world.chain.clone(), "127.0.0.1:0").await.unwrap();
    let servers = [world.electrum.url(), second.url()];
    let (seller, buyer) = (world.node_asking("seller", &servers).await, world.node_asking("buyer", &servers).await);
    world.fund(&buyer).await;
    let link = seller.publish(&world.file("film", MIB), PRICE).await;
    servers_are(&buyer, ["up", "standby"]).await;
    buyer.pay(&seller, "1000sat").await;

    world.electrum.pause();
    for node in [&seller, &buyer] {
        let [first, _] = servers_are(node, ["down", "up"]).await;
        assert!(!text(&first["reason"]).is_empty() && !text(&first["since"]).is_empty(), "{first}");
        assert_eq!(node.one(&["status"], "status").await["single_server"], false);
    }
    buyer.pay(&seller, "1500sat").await;

    second.pause();
    servers_are(&buyer, ["down", "down"]).await;
    let dest = world.path("bought");
    buyer.ask(&["get", &link, "-o", pedlar_tests::cluster::path(&dest)]).await;
    world.electrum.resume();
    servers_are(&buyer, ["up", "down"]).await;
    println!("faults fired: 2");
}

/// Waits until the node's servers are in these states; how `status` tells them.
async fn servers_are(node: &Peer, states: [&str; 2]) -> [Value; 2] {
    until(&format!("the servers are {states:?}"), async || {
        let servers = node.one(&["status"], "status").await["servers"].clone();
        let are = [0, 1].iter().all(|&place| servers[place]["state"] == states[place]);
        are.then(|| [servers[0].clone(), servers[1].clone()])
    })
    .await
}
