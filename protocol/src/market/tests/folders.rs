//! Files of a collection: sold under its root, at its price, and never as something else.

use super::world::{DEAR, START, World, key};
use crate::content::{Root, Size, Whole};
use crate::credit::Rules;
use crate::market::{BuyError, Goods};
use crate::money::Price;
use crate::offer::Service;
use crate::refusal::Refusal;
use crate::session::Request;
use crate::session::quote::{Quote, QuoteError, SignedQuote};
use crate::text::Name;

const PRICE: Price = Price::per_gib(3_000);

const WHOLE: Whole = Whole { bytes: 5_000, objects: 4 };

fn requests() -> (Request, Request) {
    let (collection, entry) = (Root::of(b"manifest"), Root::of(b"file"));
    (Request::Chunks(collection), Request::Entry { collection, entry })
}

fn size(bytes: u64) -> Size {
    Size::new(bytes).unwrap()
}

/// A world whose seller has a folder on its shelf, too.
fn world() -> World {
    let mut world = World::new(1, DEAR, Rules::default());
    let goods = Goods { name: Name::new("folder").unwrap(), size: size(4_000), whole: Some(WHOLE), price: Some(PRICE) };
    world.seller.market.handle_published(START, *requests().0.published(), goods);
    world
}

#[test]
fn a_file_is_quoted_at_the_price_of_its_collection_and_names_both_roots() {
    let mut world = world();
    let (manifest, file) = requests();
    let (buyer, seller) = (world.buyers[0].id(), world.seller.id());
    let quote = world.seller.market.handle_open(START, buyer, file, size(77)).unwrap();
    let says = quote.quote();
    assert_eq!((says.price, says.size, says.whole), (PRICE, 77, None));
    assert_eq!((says.object, says.collection), (*file.object().as_bytes(), Some(*file.published())));
    let market = &world.buyers[0].market;
    assert_eq!(market.handle_quote(START, seller, file, quote.signed().clone()).as_ref(), Ok(&quote));

    // Not as another file, not as the same file by itself, not under another collection.
    let other = Request::Entry { collection: *file.published(), entry: Root::of(b"other") };
    let alone = Request::Chunks(*file.object());
    let elsewhere = Request::Entry { collection: Root::of(b"other"), entry: *file.object() };
    for (request, field) in [(other, "object"), (alone, "collection"), (elsewhere, "collection"), (manifest, "object")]
    {
        let bought = market.handle_quote(START, seller, request, quote.signed().clone());
        assert_eq!(bought, Err(BuyError::Other(field)), "{request:?}");
    }
}

#[test]
fn the_manifest_is_quoted_with_what_the_whole_comes_to() {
    let mut world = world();
    let buyer = world.buyers[0].id();
    let quote = world.seller.market.handle_open(START, buyer, requests().0, size(1_000)).unwrap();
    assert_eq!((quote.quote().whole, quote.quote().collection), (Some(WHOLE), None));
    assert_eq!(SignedQuote::parse(quote.signed().clone()), Ok(quote));
}

#[test]
fn files_are_sold_no_more_once_their_collection_is_not() {
    let mut world = world();
    let (buyer, (_, file)) = (world.buyers[0].id(), requests());
    world.seller.market.handle_unpublished(START, file.published());
    assert_eq!(world.seller.market.handle_open(START, buyer, file, size(77)), Err(Refusal::NotFound));
}

#[test]
fn a_whole_smaller_than_its_manifest_is_no_quote() {
    let world = world();
    let quote = Quote {
        network: world.seller.market.network().clone(),
        buyer: world.buyers[0].id(),
        seller: world.seller.id(),
        number: 1,
        offer_seq: 0,
        service: Service::Chunks,
        object: [7; 32],
        collection: None,
        whole: None,
        size: 1_000,
        price: PRICE,
        expires: START,
    };
    let parse =
        |whole| SignedQuote::parse(SignedQuote::sign(Quote { whole, ..quote.clone() }, &key(1)).signed().clone());
    assert_eq!(parse(None).unwrap().quote(), &quote);
    for whole in [Whole { bytes: 999, objects: 4 }, Whole { bytes: 1_000, objects: 0 }] {
        assert_eq!(parse(Some(whole)), Err(QuoteError::Field("whole")));
    }
}
