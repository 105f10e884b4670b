//! Whom the owner blocks is sold nothing, and loses nothing.

use super::world::{DEAR, World};
use crate::account::Direction;
use crate::credit::Rules;
use crate::id::TopUpId;
use crate::market::{Standing, TopUpStep};
use crate::money::Msat;
use crate::refusal::Refusal;
use crate::text::Name;

#[test]
fn a_blocked_buyer_is_sold_nothing_until_it_is_unblocked() {
    let mut world = World::new(1, DEAR, Rules::default());
    let buyer = world.buyers[0].id();
    world.pay_finally(0, 5_000);
    let stream = world.open(0).unwrap();
    world.want(stream).unwrap().unwrap();
    world.serve(stream, 4);

    let (since, note) = (world.now, Name::new("sends no receipts").unwrap());
    assert!(world.seller.market.handle_block(since, buyer, Some(note.clone())));
    assert!(!world.seller.market.handle_block(world.now, buyer, Some(note.clone())), "no news");
    assert_eq!(world.want(stream), Some(Err(Refusal::Blocked)), "not even in a stream that is open");
    assert_eq!(world.open(0).unwrap_err(), Refusal::Blocked);
    assert_eq!(world.seller.market.standing(&buyer, world.now), Standing::Blocked { since });
    assert_eq!(world.allowance(0), Msat::ZERO);

    world.seller.store();
    world.crash_seller();
    let block = world.seller.market.block_of(&buyer).cloned().expect("it is kept");
    assert_eq!((block.since, block.note), (since, Some(note)));
    world.sync(0);
    world.audit();
    world.check_agreement(0);
    assert!(world.sold(0).tab().prepaid() > Msat::ZERO, "what it has paid stays its own");

    assert!(world.seller.market.handle_unblock(buyer));
    assert!(!world.seller.market.handle_unblock(buyer));
    let stream = world.open(0).unwrap();
    assert!(world.want(stream).unwrap().is_ok());
    world.seller.store();
    world.crash_seller();
    assert_eq!(world.seller.market.block_of(&buyer), None);
}

#[test]
fn who_is_blocked_may_pay_what_it_owes_and_no_more() {
    let mut world = World::new(1, DEAR, Rules::default());
    let buyer = world.buyers[0].id();
    let (now, id) = (world.now, TopUpId([8; 32]));
    assert!(world.seller.market.handle_block(now, buyer, None));
    assert_eq!(world.seller.market.handle_topup_request(now, buyer, id, 5_000), Err(Refusal::Blocked));
    assert!(world.seller.market.handle_unblock(buyer));
    assert!(matches!(world.seller.market.handle_topup_request(now, buyer, id, 5_000), Ok(TopUpStep::NeedAddress(_))));
    assert_eq!(world.seller.market.account(&buyer, Direction::Sold).map(|account| account.paid()), Some(Msat::ZERO));
}
