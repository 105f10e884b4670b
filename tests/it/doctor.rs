//! `pedlar doctor`: each thing that can be wrong is made wrong, and the one check that is about it says so and what to do.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use pedlar_devnet::node::Home;
use pedlar_tests::cluster::{Peer, Verb, World, agreed, path, text, until};
use pedlar_tests::disk::{SmallDisk, tell};
use pedlar_tests::lying_electrum::{Lie, LyingElectrum};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::{MIB, PRICE, world};

/// What is looked at while a node runs, where it has one Electrum server.
const CHECKS: [&str; 14] = [
    "clock",
    "config",
    "electrum",
    "journal",
    "ledger",
    "listen",
    "node",
    "peers",
    "permissions",
    "published",
    "reachable",
    "seed",
    "space",
    "wallet",
];

/// Checks of a node and what became of them; counts the faults that it saw.
struct Patient {
    home: Home,
    faults: u32,
}

impl Patient {
    fn of(peer: &Peer) -> Self {
        Self { home: peer.home.clone(), faults: 0 }
    }

    /// What `doctor` says of each check, and that its exit code and summary fit.
    async fn checks(&self, flags: &[&str]) -> BTreeMap<String, Value> {
        let verb: Vec<&str> = ["doctor"].iter().chain(flags).copied().collect();
        let (code, mut lines) = Verb::begin(&self.home, &verb).ends().await;
        let summary = lines.pop().expect("a summary");
        let failed = lines.iter().filter(|line| line["ok"] == false).count();
        assert_eq!(
            (&summary["type"], &summary["checks"], &summary["failed"]),
            (&"summary".into(), &lines.len().into(), &failed.into()),
            "{lines:?}"
        );
        assert_eq!(code, Some(i32::from(failed > 0)), "{lines:?}");
        assert!(lines.iter().all(|line| line["type"] == "check" && (line["ok"] == true) == line["hint"].is_null()));
        // Of those with a line for each of several things, the line that fails.
        lines.sort_by_key(|line| line["ok"] == false);
        lines.into_iter().map(|line| (text(&line["name"]).to_owned(), line)).collect()
    }

    /// Waits until all is well, and says how many checks that are.
    async fn is_well(&self, flags: &[&str]) -> Vec<String> {
        until("all is well", async || {
            let checks = self.checks(flags).await;
            let ill: Vec<&Value> = checks.values().filter(|check| check["ok"] == false).collect();
            if !ill.is_empty() {
                println!("not yet: {ill:?}");
            }
            ill.is_empty().then(|| checks.into_keys().collect())
        })
        .await
    }

    /// Waits until this check fails, and asserts that no other does; what it says to do.
    async fn fails(&mut self, name: &str, flags: &[&str], found: &str) -> String {
        let checks = until(&format!("`{name}` fails"), async || {
            let checks = self.checks(flags).await;
            let found = checks.get(name).is_some_and(|check| check["ok"] == false);
            if !found {
                println!("not yet: {:?}", checks.get(name));
            }
            found.then_some(checks)
        })
        .await;
        let ill: Vec<&String> = checks.iter().filter(|(_, check)| check["ok"] == false).map(|(name, _)| name).collect();
        assert_eq!(ill, [name], "{checks:?}");
        let check = &checks[name];
        assert!(text(&check["found"]).contains(found), "{check}");
        println!("{check}");
        self.faults += 1;
        text(&check["hint"]).to_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.dir.join(name)
    }
}

/// A seller that was paid and has sold, its buyer, and the file that it sells.
async fn traders(world: &World) -> (Peer, Peer, PathBuf) {
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let film = world.file("film", MIB);
    let link = seller.publish(&film, PRICE).await;
    buyer.ask(&["get", &link, "-o", path(&world.path("bought.bin")), "--prepay", "1000sat", "--yes"]).await;
    agreed(&seller, &buyer).await;
    (seller, buyer, film)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_running_node_is_named_with_what_to_do() {
    let world = world().await;
    let (seller, mut buyer, film) = traders(&world).await;
    let mut patient = Patient::of(&seller);
    assert_eq!(patient.is_well(&[]).await, CHECKS);
    assert_eq!(Patient::of(&buyer).is_well(&[]).await, CHECKS);

    fs::set_permissions(patient.file("journal.sqlite"), Permissions::from_mode(0o644)).unwrap();
    let hint = patient.fails("permissions", &[], "journal.sqlite (0644)").await;
    shell(&hint);
    patient.is_well(&[]).await;

    let config = fs::read_to_string(patient.file("config.toml")).unwrap();
    fs::write(patient.file("config.toml"), format!("{config}min_topup_st = 5\n")).unwrap();
    let line = config.lines().count() + 1;
    let hint = patient.fails("config", &[], &format!("line {line}: there is no setting `min_topup_st`")).await;
    assert!(hint.contains("config.toml"), "{hint}");
    fs::write(patient.file("config.toml"), config).unwrap();

    let (row, body) = flip_a_bit(&patient.file("journal.sqlite"));
    let hint = patient.fails("journal", &[], &format!("number {row} for one")).await;
    assert!(hint.contains("pedlar backup restore FILE"), "{hint}");
    put_back(&patient.file("journal.sqlite"), row, &body);

    fs::write(&film, "another film").unwrap();
    let hint = patient.fails("published", &[], "the file has 12 bytes, 1048576 were published").await;
    let unpublish: Vec<&str> = hint.rsplit("pedlar ").next().unwrap().split(' ').collect();
    seller.ask(&unpublish).await;
    patient.is_well(&[]).await;

    world.electrum.pause();
    let hint = patient.fails_all(&["electrum"], "it closed the connection", &["clock"]).await;
    assert!(hint.contains("`electrum` in config.toml"), "{hint}");
    world.electrum.resume();
    patient.is_well(&[]).await;

    fs::rename(patient.file("seed"), patient.file("gone")).unwrap();
    let hint = patient.fails("seed", &[], "No such file").await;
    assert!(hint.contains("pedlar init --restore"), "{hint}");
    fs::rename(patient.file("gone"), patient.file("seed")).unwrap();

    buyer.stop().await;
    let hint = patient.fails("peers", &[], "nobody is connected").await;
    assert!(hint.contains("pedlar up --bootstrap"), "{hint}");
    buyer.restart().await;
    patient.is_well(&[]).await;
    println!("faults fired: {}", patient.faults);
    assert_eq!(patient.faults, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_home_is_named_and_nothing_in_it_is_changed() {
    let world = world().await;
    let (mut seller, mut buyer, film) = traders(&world).await;
    let mut patient = Patient::of(&seller);
    let pass = patient.home.passphrase_file();
    let known = ["--passphrase-file", path(&pass)];

    // After a crash, so that what was written last is in the log of SQLite only; and after an end in order.
    for crash in [true, false] {
        if crash {
            seller.kill().await
        } else {
            seller.stop().await
        }
        let before = contents(&patient.home.dir);
        let checks = patient.is_well(&known).await;
        assert_eq!(checks.len(), CHECKS.len() - 2, "{checks:?}");
        assert_eq!(contents(&patient.home.dir), before, "nothing is changed");
        seller.restart().await;
    }
    buyer.stop().await;
    seller.stop().await;

    let hint = patient.fails("ledger", &[], "without the passphrase").await;
    assert!(hint.contains("--passphrase-file"), "{hint}");
    fs::write(world.path("guess"), "guess").unwrap();
    patient.fails("seed", &["--passphrase-file", path(&world.path("guess"))], "passphrase").await;

    let (row, body) = flip_a_bit(&patient.file("journal.sqlite"));
    patient.fails("journal", &known, &format!("number {row} for one")).await;
    put_back(&patient.file("journal.sqlite"), row, &body);

    // Each row for itself is in order, and yet: a payment counts that the wallet never saw.
    let wallet = patient.file("wallet.sqlite");
    let kept = fs::read(&wallet).unwrap();
    change(&wallet, "DELETE FROM pedlar_incoming");
    let hint = patient.fails("ledger", &known, "the wallet does not know it").await;
    assert!(hint.contains("pedlar sell chunks --stop"), "{hint}");
    fs::write(&wallet, &kept).unwrap();

    for (file, check) in [("journal.sqlite", "journal"), ("wallet.sqlite", "wallet")] {
        let kept = fs::read(patient.file(file)).unwrap();
        change(&patient.file(file), "PRAGMA user_version = 99");
        assert_eq!(patient.fails(check, &known, "99").await, "install a newer pedlar");
        fs::write(patient.file(file), &kept).unwrap();
    }

    fs::write(&wallet, [kept.as_slice(), b"?"].concat().split_at(kept.len() / 2).1).unwrap();
    let hint = patient.fails("wallet", &known, "is damaged").await;
    let (search, up) = hint.split_once(": ").unwrap().1.rsplit_once(" && ").unwrap();
    assert_eq!(up, "pedlar up");
    shell(search);
    seller.restart().await;
    until("the payment is found again", async || (seller.balance().await == 1_000).then_some(())).await;
    seller.stop().await;
    // The coins are there; for whom they were paid, only the file knew.
    fs::write(&wallet, &kept).unwrap();
    patient.is_well(&known).await;

    fs::remove_file(&film).unwrap();
    patient.fails("published", &known, "the file is gone").await;
    world.file("film", MIB);
    let hint = patient.fails("published", &known, "was written to or replaced").await;
    assert!(hint.contains("pedlar unpublish pedlar:"), "{hint}");
    seller.restart().await;
    let link = hint.rsplit(' ').next().unwrap();
    seller.ask(&["unpublish", link]).await;
    seller.stop().await;

    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = fs::read_to_string(patient.file("config.toml")).unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", held.local_addr().unwrap().port());
    fs::write(patient.file("config.toml"), format!("listen = [\"{listen}\"]\n{config}")).unwrap();
    let hint = patient.fails("listen", &known, &listen).await;
    assert!(hint.contains("--listen"), "{hint}");
    drop(held);
    patient.is_well(&known).await;
    println!("faults fired: {}", patient.faults);
    assert_eq!(patient.faults, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_can_not_be_right_and_one_bad_server_of_two_are_named() {
    let world = world().await;
    let liar = LyingElectrum::before(world.electrum.local_addr()).await;
    let mut node = world.node_asking("node", &[liar.url()]).await;
    node.stop().await;
    let mut patient = Patient::of(&node);
    let pass = patient.home.passphrase_file();
    let known = ["--passphrase-file", path(&pass)];
    patient.is_well(&known).await;

    // The newest block is of tomorrow: so it is tomorrow.
    liar.lie(Lie::Later(24 * 3_600));
    let hint = patient.fails("clock", &known, "this clock is at least").await;
    assert!(hint.contains("timedatectl set-ntp true"), "{hint}");
    assert!(liar.told() > 0);
    liar.lie(Lie::None);
    patient.is_well(&known).await;

    let config = fs::read_to_string(patient.file("config.toml")).unwrap();
    let (one, two) = (format!("{:?}", liar.url()), format!("{:?}, {:?}", liar.url(), world.electrum.url()));
    fs::write(patient.file("config.toml"), config.replace(&one, &two)).unwrap();
    patient.is_well(&known).await;
    liar.lie(Lie::Garbage);
    patient.fails("electrum", &known, "it broke the protocol").await;
    drop(liar);
    patient.fails("electrum", &known, "is it running").await;

    fs::write(patient.file("config.toml"), config.replace(&one, "")).unwrap();
    let hint = patient.fails("electrum", &known, "no Electrum server is configured").await;
    assert!(hint.contains("electrum = ["), "{hint}");
    println!("faults fired: {}", patient.faults);
    assert_eq!(patient.faults, 4);
}

#[test]
fn a_disk_that_is_full_is_named() {
    tell("doctor::a_disk_that_is_full_is_named", async || {
        let world = world().await;
        let disk = SmallDisk::mount(world.path("node"), 64 * MIB);
        let node = world.node("node").await;
        let other = world.node("other").await;
        let mut patient = Patient::of(&node);
        patient.is_well(&[]).await;
        disk.fill();
        let hint = patient.fails("space", &[], "has 0 B left").await;
        assert!(hint.contains(path(disk.path())), "{hint}");
        disk.free();
        patient.is_well(&[]).await;
        drop(other);
        println!("faults fired: {}", patient.faults);
        assert_eq!(patient.faults, 1);
    });
}

impl Patient {
    /// Waits until this check fails, as [`Patient::fails`], where what it finds leaves `unmade` checks nothing to look at.
    async fn fails_all(&mut self, ill: &[&str], found: &str, unmade: &[&str]) -> String {
        let hint = self.fails(ill[0], &[], found).await;
        let checks = self.checks(&[]).await;
        assert!(unmade.iter().all(|name| !checks.contains_key(*name)), "{checks:?}");
        hint
    }
}

/// Changes one bit of the journal's last row, as a bad disk would; which row, and what it held.
fn flip_a_bit(journal: &Path) -> (i64, Vec<u8>) {
    let db = Connection::open(journal).unwrap();
    let sql = "SELECT number, body FROM entries ORDER BY number DESC LIMIT 1";
    let (number, body): (i64, Vec<u8>) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut flipped = body.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    put_back(journal, number, &flipped);
    (number, body)
}

fn put_back(journal: &Path, number: i64, body: &[u8]) {
    let db = Connection::open(journal).unwrap();
    let changed = db.execute("UPDATE entries SET body = ?2 WHERE number = ?1", params![number, body]).unwrap();
    assert_eq!(changed, 1);
}

fn change(file: &Path, sql: &str) {
    let db = Connection::open(file).unwrap();
    db.execute_batch(sql).unwrap();
    // So that the file alone holds all of it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Does what a hint says.
fn shell(command: &str) {
    let done = Command::new("sh").arg("-c").arg(command).status().unwrap();
    assert!(done.success(), "{command}");
}

/// All that a home holds, and when it was written.
fn contents(home: &Path) -> BTreeMap<PathBuf, (SystemTime, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        found.insert(folder.clone(), (fs::metadata(&folder).unwrap().modified().unwrap(), None));
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let file = fs::symlink_metadata(&entry).unwrap();
            match file.is_dir() {
                true => folders.push(entry),
                false => drop(found.insert(entry.clone(), (file.modified().unwrap(), fs::read(&entry).ok()))),
            }
        }
    }
    found
}
