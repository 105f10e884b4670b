//! What a seller says of our account with it, against the books of a buyer that has bought, paid and been given to.

use libp2p_identity::PeerId;
use pedlar_node::fuzzing::account_reply;
use pedlar_protocol::account::{Account, Direction, OutPoint};
use pedlar_protocol::content::Root;
use pedlar_protocol::credit::Rules;
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::market::{Books, Market, Outgoing, Terms, audit_ledgers};
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::Service;
use pedlar_protocol::session::Request;
use pedlar_protocol::session::quote::{Quote, SignedQuote};
use pedlar_protocol::settlement::{SignedTopUp, TopUp};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;

use crate::signer::{key, network};

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const TIP: u64 = 200;

/// Replies on the account stream: whatever the seller says, it never costs us. What we signed for and what the chain shows
/// stays, `paid` never falls, nothing said twice counts twice, and the books sum up.
pub fn account(data: &[u8]) {
    let mut market = buyer();
    let seller = peer_id(key(0));
    let before = account_with(&market, &seller).clone();
    account_reply(&mut market, NOW, seller, data);
    let once = account_with(&market, &seller).clone();
    assert!(once.paid() >= before.paid() && once.spent() == before.spent());
    for line in before.lines() {
        let now = once.line(&line.id()).expect("it was not folded");
        assert_eq!((now.signed_units(), now.receipt()), (line.signed_units(), line.receipt()));
        assert!(now.admitted_units() >= line.admitted_units());
    }
    for ours in before.payments() {
        let now = once.payments().find(|payment| payment.outpoint == ours.outpoint).expect("it was made");
        assert_eq!((now.amount_sat, now.ours, now.topup), (ours.amount_sat, true, ours.topup));
    }
    account_reply(&mut market, NOW, seller, data);
    assert_eq!(account_with(&market, &seller), &once, "said twice");
    let findings = audit_ledgers(&[Books { market: &market, wallet: None }]);
    assert!(findings.is_empty(), "{findings:?}");
    market.handle_stored(market.staged_in_all());
}

fn account_with<'a>(market: &'a Market, seller: &PeerId) -> &'a Account {
    market.account(seller, Direction::Bought).expect("we bought")
}

/// A buyer that has signed for half of an object and paid twice, once without a block.
fn buyer() -> Market {
    let (seller, us) = (peer_id(key(0)), peer_id(key(1)));
    let terms =
        Terms { credit: Rules::default(), min_topup_sat: 1_000, max_window: 1 << 20, budget: Default::default() };
    let mut market = Market::new(key(1).clone(), network(), terms, NOW);
    market.handle_tip(TIP);
    for n in 1..=2 {
        let id = market.handle_topup_wanted(NOW, seller, 1_000 * u64::from(n), TopUpId([n; 32]));
        let topup = TopUp {
            id,
            network: network(),
            buyer: us,
            seller,
            address: "bcrt1qexample".to_owned(),
            min_sat: 1_000,
            ceilings: [(Service::Chunks, Price::per_gib(10_000_000))].into(),
            until_height: TIP + 100,
        };
        market.handle_topup(NOW, seller, id, SignedTopUp::sign(topup, key(0)).signed().clone()).expect("its word");
        let (height, depth) = if n == 1 { (TIP, 1) } else { (0, 0) };
        let outpoint = OutPoint { txid: [n; 32], vout: 0 };
        market.handle_outgoing(
            NOW,
            Outgoing { id, outpoint, amount_sat: 1_000, fee_sat: 100, height, depth, conflicted: false },
        );
    }
    let root = Root::from([7; 32]);
    let quote = Quote {
        network: network(),
        buyer: us,
        seller,
        number: 1,
        offer_seq: 0,
        service: Service::Chunks,
        object: *root.as_bytes(),
        collection: None,
        whole: None,
        size: 1 << 20,
        price: Price::per_gib(10_000_000),
        expires: NOW,
    };
    let quote = SignedQuote::sign(quote, key(0)).signed().clone();
    let quote = market.handle_quote(NOW, seller, Request::Chunks(root), quote).expect("what was asked for");
    market.handle_verified(NOW, &quote, 1 << 19);
    market
}
