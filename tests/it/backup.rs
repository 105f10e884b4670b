//! A home is lost, and comes back from its words and a backup: the same node, the same money, and nothing twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::slice;

use pedlar_devnet::node::Home;
use pedlar_proto::v1::SyncReply;
use pedlar_protocol::content::{Groups, Root};
use pedlar_tests::cluster::{Peer, Tab, Verb, World, agreed, number, path, text, until};
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::{Freeloader, Object};
use serde_json::Value;

use crate::{MIB, PRICE, world};

/// A seller and a buyer that have traded: 1 MiB bought of an advance of 1,000 sat.
struct Story {
    world: World,
    seller: Peer,
    buyer: Peer,
    films: u64,
    /// Homes that were lost.
    lost: u64,
}

impl Story {
    async fn begin() -> Self {
        let world = world().await;
        let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
        world.fund(&buyer).await;
        let mut story = Self { world, seller, buyer, films: 0, lost: 0 };
        story.buys(Some("1000sat")).await;
        story
    }

    /// The buyer buys another MiB.
    async fn buys(&mut self, prepay: Option<&str>) -> Vec<Value> {
        self.films += 1;
        let film = self.world.file(&format!("film-{}", self.films), MIB);
        let link = format!("{}?addr={}", self.seller.publish(&film, PRICE).await, self.seller.addr());
        let dest = self.world.path(&format!("bought-{}", self.films));
        let mut verb = vec!["get", &link, "-o", path(&dest), "--yes"];
        verb.extend(prepay.iter().flat_map(|amount| ["--prepay", amount]));
        let lines = self.buyer.ask(&verb).await;
        assert!(fs::read(&dest).unwrap() == fs::read(&film).unwrap());
        lines
    }

    /// The root of the newest film.
    fn root(&self) -> Root {
        let film = self.world.path(&format!("film-{}", self.films));
        Object::new(fs::read(film).unwrap()).root
    }

    async fn backs_up(&self, node: &Peer, name: &str) -> PathBuf {
        let file = self.world.path(name);
        let made = node.one(&["backup", "create", path(&file)], "backup").await;
        let found = fs::metadata(&file).unwrap();
        assert_eq!((number(&made["bytes"]), text(&made["peer_id"])), (found.len(), node.id.as_str()));
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        file
    }
}

/// Destroys the home of a node that is down, and restores it.
async fn loses(node: &Peer, backup: &Path) -> Value {
    fs::remove_dir_all(&node.home.dir).unwrap();
    let lines = restoring(&node.home, &node.home, backup).succeeds().await;
    let restored = lines.iter().find(|line| line["type"] == "restored").unwrap().clone();
    assert_eq!(text(&restored["peer_id"]), node.id);
    assert!(lines.iter().all(|line| line["type"] != "finding"), "{lines:?}");
    restored
}

/// Waits until a restored node has searched the chain.
async fn searched(node: &Peer) {
    let searched = async || {
        let status = node.one(&["status"], "status").await;
        (status["restoring"] == false).then_some(())
    };
    until("the chain is searched", searched).await;
}

/// How many payments a node has sent.
async fn sent(node: &Peer) -> usize {
    let history = node.ask(&["wallet", "history"]).await;
    history.iter().filter(|line| line["type"] == "tx" && number(&line["sent_sat"]) > 0).count()
}

/// Restores a backup into a home with the words of another, or its own.
fn restoring(home: &Home, words: &Home, backup: &Path) -> Verb {
    let (words, passphrase) = (words.dir.with_extension("words"), words.passphrase_file());
    let verb =
        ["backup", "restore", path(backup), "--words-file", path(&words), "--passphrase-file", path(&passphrase)];
    Verb::begin(home, &verb)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_homes_are_lost_and_trade_goes_on_as_if_they_were_not() {
    let mut story = Story::begin().await;
    let before = agreed(&story.seller, &story.buyer).await;
    let coins = (story.seller.balance().await, story.buyer.balance().await);
    let backups = [story.backs_up(&story.seller, "s.backup").await, story.backs_up(&story.buyer, "b.backup").await];
    let Story { seller, buyer, lost, .. } = &mut story;
    for (node, backup) in [seller, buyer].into_iter().zip(&backups) {
        node.kill().await;
        let restored = loses(node, backup).await;
        assert!(number(&restored["entries"]) > 0);
        node.restart().await;
        *lost += 1;
    }
    searched(&story.seller).await;
    searched(&story.buyer).await;
    assert_eq!((story.seller.balance().await, story.buyer.balance().await), coins);
    assert_eq!(agreed(&story.seller, &story.buyer).await, before);
    let published = story.seller.one(&["published"], "published").await;
    assert!(published["refused"].is_string(), "its hash tree is gone, and that is said: {published}");
    story.buys(None).await;
    let after = agreed(&story.seller, &story.buyer).await;
    assert_eq!(after, Tab { paid: before.paid, spent: 2 * before.spent });
    println!("faults fired: {} homes lost", story.lost);
    assert_eq!(story.lost, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_backup_of_these_words_leaves_nothing_behind() {
    let mut dice = Dice::new();
    let mut story = Story::begin().await;
    let (seller, buyer) = (&story.seller, &story.buyer);
    let backup = story.backs_up(buyer, "b.backup").await;
    let error = buyer.refuses(&["backup", "create", path(&backup)], 2).await;
    assert_eq!(text(&error["code"]), "exists");

    let home = story.world.home("another");
    let refused = async |backup: &Path, words: &Home, exit: i32| {
        let error = restoring(&home, words, backup).fails(exit).await;
        assert!(!home.dir.exists(), "{error} leaves a home behind");
        text(&error["code"]).to_owned()
    };
    assert_eq!(refused(&backup, &seller.home, 12).await, "wrong_words");
    let good = fs::read(&backup).unwrap();
    let bad = story.world.path("bad.backup");
    let mut fired = 0;
    for _ in 0..8 {
        let place = dice.below(good.len() as u64) as usize;
        let mut changed = good.clone();
        changed[place] ^= 1 << dice.below(8);
        for bytes in [&changed[..], &good[..place]] {
            fs::write(&bad, bytes).unwrap();
            // Where its head names the key, another key can't be told from a changed byte.
            let error = restoring(&home, &buyer.home, &bad).ends().await.0;
            assert!(matches!(error, Some(12 | 15)), "{error:?} for byte {place}");
            assert!(!home.dir.exists(), "byte {place} leaves a home behind");
            fired += 1;
        }
    }
    fs::write(&bad, b"not a backup").unwrap();
    assert_eq!(refused(&bad, &buyer.home, 15).await, "damaged_backup");
    assert_eq!(refused(&story.world.path("none"), &buyer.home, 2).await, "unreadable");
    let error = restoring(&buyer.home, &buyer.home, &backup).fails(2).await;
    assert_eq!(text(&error["code"]), "exists", "a home that is there is not touched");

    // While no node runs, the verb makes the same.
    story.buyer.stop().await;
    let buyer = &story.buyer;
    let (file, passphrase) = (story.world.path("down.backup"), buyer.home.passphrase_file());
    buyer.ask(&["backup", "create", path(&file), "--passphrase-file", path(&passphrase)]).await;
    let restored = restoring(&home, &buyer.home, &file).succeeds().await;
    assert_eq!(text(&restored[0]["peer_id"]), buyer.id);
    println!("faults fired: {fired}");
    assert!(fired > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_with_an_old_backup_learns_what_it_signed_and_pays_nothing_twice() {
    let mut story = Story::begin().await;
    let backup = story.backs_up(&story.buyer, "b.backup").await;
    let old = agreed(&story.seller, &story.buyer).await;
    story.buyer.pay(&story.seller, "2000sat").await;
    story.buys(None).await;
    story.buys(None).await;
    let before = agreed(&story.seller, &story.buyer).await;
    assert_eq!(before, Tab { paid: 3_000_000, spent: 3 * old.spent });
    let (coins, payments) = (story.buyer.balance().await, sent(&story.buyer).await);

    story.buyer.kill().await;
    loses(&story.buyer, &backup).await;
    story.buyer.restart().await;
    searched(&story.buyer).await;
    // Whoever comes back connects, and the counters are exchanged.
    story.buyer.knows(&story.seller).await;
    story.buyer.ask(&["account", "show", &story.seller.id]).await;
    assert_eq!(agreed(&story.seller, &story.buyer).await, before);
    assert_eq!((story.buyer.balance().await, sent(&story.buyer).await), (coins, payments));
    // What its own wallet paid is known as such again, with its fee.
    let own = async || {
        let history = story.buyer.ask(&["wallet", "history"]).await;
        let named = |line: &&Value| line["payments"].as_array().is_some_and(|payments| !payments.is_empty());
        (history.iter().filter(named).count() == payments).then_some(())
    };
    until("each transaction has its payment again", own).await;

    story.buys(None).await;
    let after = agreed(&story.seller, &story.buyer).await;
    assert_eq!(after, Tab { spent: 4 * old.spent, ..before });
    assert_eq!(sent(&story.buyer).await, payments, "what was paid before pays");
    println!("faults fired: 1 home lost, {} msat of receipts and 2000 sat of payments forgotten", 2 * old.spent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_with_an_old_backup_learns_its_books_and_is_told_nothing_twice() {
    let mut story = Story::begin().await;
    let backup = story.backs_up(&story.seller, "s.backup").await;
    let old = agreed(&story.seller, &story.buyer).await;
    story.buyer.pay(&story.seller, "2000sat").await;
    story.buys(None).await;
    let before = agreed(&story.seller, &story.buyer).await;
    let root = story.root();
    // One that the backup has never heard of, and that shows what it likes.
    let (cheat, groups) =
        (Freeloader::new(&story.world, &story.seller, story.seller.addrs()).await, Groups::new(0, 4).unwrap());
    let word = cheat.top_up(&story.world, 1_000).await;
    let papers = [cheat.buy_for(root, groups).await, cheat.buy_for(root, groups).await];
    let owed = cheat.books().await;
    assert!(owed.spent_msat > 0 && owed.paid_msat == 1_000_000, "{owed:?}");
    let coins = story.seller.balance().await;

    story.seller.kill().await;
    loses(&story.seller, &backup).await;
    story.seller.restart().await;
    searched(&story.seller).await;
    assert_eq!(story.seller.balance().await, coins);

    let books = async || until("the cheat is answered", async || Some(cheat.books().await)).await;
    let counts = |reply: &SyncReply| (reply.paid_msat, reply.spent_msat);
    let forgotten = books().await;
    assert_eq!(counts(&forgotten), (0, 0), "what nobody shows is forgotten, its money with it");
    assert!(forgotten.restored_ms > 0);
    let mut shown = cheat.remind(&[], slice::from_ref(&word)).await.unwrap();
    if shown.paid_msat == 0 {
        shown = until("the payment is found", async || Some(books().await).filter(|reply| reply.paid_msat > 0)).await;
    }
    assert_eq!(counts(&shown), (1_000_000, 0), "an advance is known by our own word for it");
    let half = cheat.sign(&papers[0].0, papers[0].1.units() / 2);
    let older = cheat.remind(&[(papers[0].0.clone(), half.clone())], &[]).await.unwrap();
    let whole = cheat.remind(&papers, slice::from_ref(&word)).await.unwrap();
    assert!(older.spent_msat < whole.spent_msat);
    assert_eq!(counts(&whole), counts(&owed), "both sides have what they had");
    for lines in [&papers[..], &papers[..1], &[(papers[0].0.clone(), half)]] {
        let again = cheat.remind(lines, slice::from_ref(&word)).await.unwrap();
        assert_eq!(counts(&again), counts(&owed), "what was shown before is worth nothing again");
    }

    // The honest buyer does the same by itself at its next purchase, which its old balance pays for.
    story.buys(None).await;
    assert_eq!(agreed(&story.seller, &story.buyer).await, Tab { paid: before.paid, spent: 3 * old.spent });
    println!("faults fired: 1 home lost, {} msat forgotten of two buyers", before.spent - old.spent + owed.spent_msat);
}
