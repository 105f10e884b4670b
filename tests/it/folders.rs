//! Folders: bought whole, in any order, from whoever has them, and never written outside of where they belong.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pedlar_protocol::content::{Collection, Kind, Link, MAX_MANIFEST_LEN, Root};
use pedlar_protocol::money::Price;
use pedlar_protocol::session::CloseCode;
use pedlar_tests::cluster::{World, agreed, number, path, text, until};
use pedlar_tests::dice::Dice;
use pedlar_tests::hostile::HostileSeller;

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

/// msat per GiB of [`PRICE`].
const MSAT: Price = Price::per_gib(7_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_folder_is_found_paid_once_and_comes_whole() {
    let world = world().await;
    let (mut seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let folder = folder(&world, "photos", 20, 40_000);
    fs::write(folder.join("a/empty"), b"").unwrap();
    fs::copy(folder.join("a/0"), folder.join("again")).unwrap();
    symlink("/etc/passwd", folder.join("link")).unwrap();
    let lines = seller.ask(&["publish", path(&folder), "--price", PRICE]).await;
    let skipped = lines.iter().find(|line| line["type"] == "skipped").expect("the link is no part of it");
    assert!(text(&skipped["path"]).ends_with("/link") && skipped["reason"] == "a symbolic link", "{skipped}");
    fs::remove_file(folder.join("link")).unwrap();
    let published = lines.iter().find(|line| line["type"] == "published").expect("it is for sale");
    assert_eq!(number(&published["size"]), tree(&folder).values().map(|bytes| bytes.len() as u64).sum::<u64>());
    // A restart forgets nothing.
    seller.stop().await;
    seller.restart().await;
    let kept = seller.one(&["published"], "published").await;
    assert_eq!(
        (&kept["root"], &kept["size"], &kept["path"]),
        (&published["root"], &published["size"], &published["path"])
    );

    // The offer names it, too, with a link to a folder.
    let link = bare(text(&published["link"]));
    buyer.knows(&seller).await;
    let offer = buyer.one(&["market"], "offer").await;
    assert_eq!(bare(text(&offer["titles"][0]["link"])), link);

    let dest = world.path("bought");
    let quote = buyer.one(&["get", &link, "-o", path(&dest), "--dry-run"], "quote").await;
    assert!(!dest.exists() && !part(&dest).exists(), "a dry run leaves nothing");
    let (whole, objects) = sold(&folder);
    let most = MSAT.charge(whole).unwrap().msat() + objects;
    assert!((most - objects..=most).contains(&number(&quote["cost_msat"])), "{quote} for {whole} bytes");
    let lines = buyer.ask(&["get", &link, "-o", path(&dest), "--prepay", "3000sat", "--yes"]).await;
    assert_eq!(tree(&dest), tree(&folder));
    assert!(!part(&dest).exists());
    let summary = lines.last().unwrap();
    assert_eq!(number(&summary["bytes"]), whole, "each object once, the manifest among them");
    let payments = lines.iter().filter(|line| line["type"] == "payment").count();
    assert_eq!(payments, 1, "one advance for all of it");
    let far = lines.iter().rfind(|line| line["type"] == "progress").expect("progress");
    assert!(number(&far["total"]) == whole && number(&far["bytes"]) <= whole, "{far}");
    let tab = agreed(&seller, &buyer).await;
    assert_eq!(tab.spent, number(&summary["paid_msat"]));
    assert!(tab.spent <= number(&quote["cost_msat"]), "no dearer than it was quoted");

    // A second time it is in the way, as a file in it would be, and stays as it is.
    for taken in [dest.clone(), dest.join("a/0")] {
        let error = buyer.refuses(&["get", &link, "-o", path(&taken)], 2).await;
        assert_eq!(error["code"], "exists");
    }
    assert_eq!(tree(&dest), tree(&folder));
    assert_eq!(agreed(&seller, &buyer).await, tab, "nothing was bought");
    seller.ask(&["unpublish", &link]).await;
    assert_eq!(seller.ask(&["published"]).await.len(), 1, "the summary alone");
    assert_eq!(fs::read_dir(seller.home.dir.join("blobs")).unwrap().count(), 0, "its manifest goes with it");
    assert_eq!(fs::read_dir(seller.home.dir.join("outboards")).unwrap().count(), 0, "and its hash trees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_is_killed_goes_on_and_buys_nothing_twice() {
    let world = world().await;
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let mut buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    let mut dice = Dice::new();
    let folder = folder(&world, "films", 12, 4 * MIB);
    let link = format!("{}?addr={}", seller.publish(&folder, PRICE).await, seller.addr());
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let verb = ["get", &link, "-o", path(&dest)];
    let (whole, objects) = sold(&folder);
    let mut faults = 0;
    for third in 0..3 {
        let mut get = buyer.begin(&verb);
        get.reaches_bytes(whole / 4 * third + 1 + dice.below(whole / 8)).await;
        buyer.kill().await;
        assert!(!dest.exists(), "it was under way");
        get.fails(5).await;
        faults += 1;
        buyer.restart().await;
    }
    let lines = buyer.ask(&verb).await;
    assert_eq!(tree(&dest), tree(&folder));
    let last = number(&lines.last().unwrap()["bytes"]);
    assert!(last > 0 && last < whole / 2, "{last} of {whole} were missing");
    let spent = agreed(&seller, &buyer).await.spent;
    // What was on its way when the power went is bought again, or was written and not signed for: two windows a session.
    let windows = MSAT.charge(3 * 8 * 2 * 64 * 1024).unwrap().msat() + 4 * objects;
    assert!(spent.abs_diff(MSAT.charge(whole).unwrap().msat()) <= windows, "{spent} msat, {windows} more or less");
    println!("faults fired: {faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_of_a_file_needs_no_second_allowance() {
    let world = world().await;
    let seller = world.node_with("seller", SMALL_WINDOWS).await;
    let mut buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    let folder = folder(&world, "films", 2, 8 * MIB);
    let link = format!("{}?addr={}", seller.publish(&folder, PRICE).await, seller.addr());
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let mut get = buyer.begin(&["get", &link, "-o", path(&dest)]);
    get.reaches_bytes(11 * MIB).await;
    buyer.kill().await;
    get.fails(5).await;
    buyer.restart().await;
    // Less than either file costs by itself, and more than both lack.
    let most = format!("{}msat", MSAT.charge(6 * MIB).unwrap().msat());
    let lines = buyer.ask(&["get", &link, "-o", path(&dest), "--max", &most]).await;
    assert_eq!(tree(&dest), tree(&folder));
    assert!(number(&lines.last().unwrap()["bytes"]) <= 6 * MIB);
    agreed(&seller, &buyer).await;
    println!("faults fired: 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_seller_dies_or_has_changed_a_file_another_one_goes_on() {
    let world = world().await;
    let mut cheap = world.node_with("cheap", SMALL_WINDOWS).await;
    let dear = world.node_with("dear", SMALL_WINDOWS).await;
    let buyer = world.node_with("buyer", SMALL_WINDOWS).await;
    world.fund(&buyer).await;
    let (one, other) = (folder(&world, "films", 10, MIB), world.path("films too"));
    copy_tree(&one, &other);
    let link = cheap.publish(&one, PRICE).await;
    assert_eq!(dear.publish(&other, "9000sat/GiB").await, link, "one folder has one root, wherever it lies");
    for seller in [&cheap, &dear] {
        buyer.pay(seller, "1000sat").await;
    }
    let link = format!("{link}?addr={}&addr={}", cheap.addr(), dear.addr());

    // A file that was changed comes from the other one, all else from the cheap one.
    let before = fs::read(one.join("a/0")).unwrap();
    fs::write(one.join("a/0"), b"something else").unwrap();
    let refused = cheap.one(&["published"], "published").await;
    assert!(text(&refused["refused"]).contains("a/0: the file has 14 bytes"), "{refused}");
    let dest = world.path("first");
    let lines = buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert_eq!(tree(&dest), tree(&other));
    let failed = lines.iter().find(|line| line["type"] == "failed").expect("it is refused");
    assert!(text(&failed["reason"]).starts_with("a/0: ") && text(&failed["reason"]).contains("changed"), "{failed}");
    let bytes = shares(lines.last().unwrap());
    assert_eq!((bytes[&dear.id], bytes.values().sum::<u64>()), (MIB, sold(&other).0));

    fs::write(one.join("a/0"), before).unwrap();
    let dest = world.path("second");
    let mut get = buyer.begin(&["get", &link, "-o", path(&dest)]);
    get.reaches_bytes(2 * MIB).await;
    cheap.kill().await;
    let lines = get.succeeds().await;
    assert_eq!(tree(&dest), tree(&other));
    let bytes = shares(lines.last().unwrap());
    assert!(
        bytes.len() == 2 && bytes.values().sum::<u64>() == sold(&other).0,
        "both have sold, no byte twice: {bytes:?}"
    );
    agreed(&dear, &buyer).await;
    println!("faults fired: 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_which_nobody_has_a_file_comes_in_part_and_the_rest_later() {
    const LEN: u64 = 100_000;
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let folder = folder(&world, "films", 6, LEN);
    let link = format!("{}?addr={}", seller.publish(&folder, PRICE).await, seller.addr());
    buyer.pay(&seller, "1000sat").await;
    let spoiled = folder.join("a/2");
    let before = fs::read(&spoiled).unwrap();
    fs::write(&spoiled, b"something else").unwrap();
    let dest = world.path("bought");
    let verb = ["get", &link, "-o", path(&dest)];
    for _ in 0..2 {
        let error = buyer.refuses(&verb, 3).await;
        assert_eq!(error["code"], "partial");
        assert!(text(&error["message"]).contains("5 of 6 files are whole, missing: a/2; no seller is left"), "{error}");
        assert!(!dest.exists(), "what is not whole has not its name");
    }
    fs::write(&spoiled, before).unwrap();
    assert!(link.starts_with(&seller.publish(&folder, PRICE).await), "it is looked at again, and the same");
    let lines = buyer.ask(&verb).await;
    assert_eq!(tree(&dest), tree(&folder));
    assert_eq!(number(&lines.last().unwrap()["bytes"]), LEN, "nothing is bought twice");
    agreed(&seller, &buyer).await;
    println!("faults fired: 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_never_costs_more_than_was_allowed() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let folder = folder(&world, "films", 6, MIB);
    let link = seller.publish(&folder, PRICE).await;
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let before = buyer.tab(&seller.id, "bought").await.spent;
    let charge = MSAT.charge(sold(&folder).0).unwrap().msat();
    let below = format!("{}msat", charge - 1);
    let error = buyer.refuses(&["get", &link, "-o", path(&dest), "--max", &below], 14).await;
    assert_eq!(error["code"], "too_dear");
    assert_eq!(buyer.tab(&seller.id, "bought").await.spent, before, "not even the list of files was bought");
    let enough = text(&error["hint"]).split("--max ").nth(1).expect("what would do").to_owned();
    let lines = buyer.ask(&["get", &link, "-o", path(&dest), "--max", &enough]).await;
    assert_eq!(tree(&dest), tree(&folder));
    assert!(number(&lines.last().unwrap()["paid_msat"]) <= enough.trim_end_matches("msat").parse().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_list_of_files_is_refused_and_nothing_is_written_outside() {
    let world = world().await;
    let buyer = world.node("buyer").await;
    let mut dice = Dice::new();
    let mut faults = 0;
    let manifests: [(&str, Vec<u8>); 5] = [
        ("`.` or `..`", manifest(&["../escaped"])),
        ("empty part", manifest(&["/tmp/escaped"])),
        ("upper and lower case", manifest(&["README", "readme"])),
        ("needs a folder", manifest(&["a", "a/b"])),
        ("are allowed", vec![b'x'; MAX_MANIFEST_LEN + 1]),
    ];
    for (why, manifest) in manifests {
        let root = Root::of(&manifest);
        assert!(Collection::decode(&manifest).is_err());
        let liar = HostileSeller::of_folder(&world, manifest, &mut dice).await;
        let link = format!("{}?addr={}", Link::new(Kind::Collection, root), liar.addr);
        let inside = world.path("inside");
        fs::create_dir(&inside).unwrap();
        let before = names(&world.path("."));
        let error = buyer.refuses(&["get", &link, "-o", path(&inside.join("bought"))], 15).await;
        assert!(error["code"] == "integrity" && text(&error["message"]).contains(why), "{error}");
        assert_eq!(names(&inside), Vec::<String>::new(), "{why}: nothing is left");
        assert_eq!(names(&world.path(".")), before, "{why}: nothing is written outside");
        fs::remove_dir(&inside).unwrap();
        // Its bytes are those of the link, however wrong they are; one that is too long is not even begun.
        let code = if why == "are allowed" { CloseCode::BadData } else { CloseCode::Done };
        assert_eq!(until("the liar hears the end", async || liar.left_with()).await, code, "{why}");
        faults += 1;
    }
    println!("faults fired: {faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_cannot_be_sold_say_why() {
    let world = world().await;
    let seller = world.node("seller").await;
    let folder = world.path("folder");
    fs::create_dir(&folder).unwrap();
    let publish = ["publish", path(&folder), "--price", PRICE];
    let error = seller.refuses(&publish, 2).await;
    assert!(text(&error["message"]).contains("there is no file in it"), "{error}");
    fs::write(folder.join("Song.mp3"), b"x").unwrap();
    fs::write(folder.join("song.MP3"), b"y").unwrap();
    let error = seller.refuses(&publish, 2).await;
    assert!(text(&error["message"]).contains("Song.mp3") && text(&error["message"]).contains("song.MP3"), "{error}");
    fs::rename(folder.join("song.MP3"), folder.join("a\\b")).unwrap();
    let error = seller.refuses(&publish, 2).await;
    assert!(text(&error["message"]).contains("backslash"), "{error}");
    fs::remove_file(folder.join("a\\b")).unwrap();

    // With a copy it is sold also when the folder is gone.
    let link =
        text(&seller.one(&["publish", path(&folder), "--price", "0sat/GiB", "--copy"], "published").await["link"])
            .to_owned();
    fs::remove_dir_all(&folder).unwrap();
    let (buyer, dest) = (world.node("buyer").await, world.path("bought"));
    buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert_eq!(fs::read(dest.join("Song.mp3")).unwrap(), b"x");
    // Into a folder it goes only where that is said: the same command given twice must not buy twice.
    buyer.refuses(&["get", &link, "-o", path(&dest)], 2).await;
    buyer.ask(&["get", &link, "-o", &format!("{}/", path(&dest))]).await;
    assert_eq!(fs::read(dest.join("folder/Song.mp3")).unwrap(), b"x");
}

/// A thousand small files: `cargo test --release -p pedlar-tests -- --ignored a_thousand_small_files --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a figure of the release build"]
async fn a_thousand_small_files_take_less_than_a_minute() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let folder = folder(&world, "small", 1_000, 1_024);
    let begun = std::time::Instant::now();
    let link = seller.publish(&folder, PRICE).await;
    println!("published in {:.1} s", begun.elapsed().as_secs_f64());
    buyer.pay(&seller, "1000sat").await;
    let dest = world.path("bought");
    let lines = buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert_eq!(tree(&dest), tree(&folder));
    agreed(&seller, &buyer).await;
    let seconds = lines.last().unwrap()["seconds"].as_f64().unwrap();
    println!("bought in {seconds:.1} s");
    assert!(seconds < 60.0, "{seconds:.1} s");
}

/// A folder of so many files of this length, half of them in a folder within.
fn folder(world: &World, name: &str, files: u64, len: u64) -> std::path::PathBuf {
    let folder = world.path(name);
    for within in ["a", "b/c"] {
        fs::create_dir_all(folder.join(within)).unwrap();
    }
    for file in 0..files {
        let within = if file % 2 == 0 { "a" } else { "b/c" };
        let made = world.file(&format!("{name}-{file}"), len);
        fs::rename(made, folder.join(within).join(file.to_string())).unwrap();
    }
    folder
}

/// Every file under a folder, by its path in it.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(within) = folders.pop() {
        for child in fs::read_dir(&within).unwrap().flatten() {
            let at = child.path();
            match child.file_type().unwrap().is_dir() {
                true => folders.push(at),
                false => drop(files.insert(path(at.strip_prefix(folder).unwrap()).to_owned(), fs::read(&at).unwrap())),
            }
        }
    }
    files
}

/// Bytes that a folder is sold in, its manifest included, and in how many objects.
fn sold(folder: &Path) -> (u64, u64) {
    let files = tree(folder);
    let manifest: usize = 20 + files.keys().map(|path| 42 + path.len()).sum::<usize>();
    let different: BTreeMap<Root, usize> = files.values().map(|bytes| (Root::of(bytes), bytes.len())).collect();
    let filled = different.values().filter(|len| **len > 0);
    (manifest as u64 + filled.clone().sum::<usize>() as u64, 1 + filled.count() as u64)
}

fn copy_tree(from: &Path, to: &Path) {
    for (path, bytes) in tree(from) {
        fs::create_dir_all(to.join(&path).parent().unwrap()).unwrap();
        fs::write(to.join(path), bytes).unwrap();
    }
}

/// A manifest with these paths, whatever they are.
fn manifest(paths: &[&str]) -> Vec<u8> {
    let mut bytes = [b"pedlar folder\0\0\x01".as_slice(), &(paths.len() as u32).to_be_bytes()].concat();
    for path in paths {
        bytes.extend((path.len() as u16).to_be_bytes());
        bytes.extend(path.bytes());
        bytes.extend(1_u64.to_be_bytes());
        bytes.extend(Root::of(b"1").as_bytes());
    }
    bytes
}

/// Where a folder is while it is bought.
fn part(dest: &Path) -> std::path::PathBuf {
    dest.with_added_extension("pedlar-part")
}

/// A link without what leads to its seller.
fn bare(link: &str) -> String {
    link.split('?').next().unwrap_or(link).to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().flatten().map(|child| child.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Bytes by seller.
fn shares(summary: &serde_json::Value) -> BTreeMap<String, u64> {
    let sellers = summary["sellers"].as_array().expect("sellers");
    sellers.iter().map(|one| (text(&one["peer"]).to_owned(), number(&one["bytes"]))).collect()
}
