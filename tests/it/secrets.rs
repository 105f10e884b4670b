//! Words, keys and passphrases are nowhere but where their owner put them, and nobody else can read a home (CHECKS R21).

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bip39::Mnemonic;
use bitcoin::NetworkKind;
use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::secp256k1::Secp256k1;
use pedlar_tests::cluster::{Peer, Verb, World, agreed, path};
use pedlar_wallet::Words;

use crate::{MIB, PRICE, world};

/// The contexts under which a node derives secrets from its words.
const CONTEXTS: [&str; 2] = ["pedlar identity v1", "pedlar backup v1"];

/// So many of the words in a row are no accident.
const TELLING_WORDS: usize = 4;

/// What says most: the libraries under the node, too.
const LOUD: &str = "log = \"trace\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_file_no_log_no_argument_and_no_environment() {
    let world = world().await;
    let (mut seller, mut buyer) = (secretive(&world, "seller").await, secretive(&world, "buyer").await);
    trade(&world, &mut seller, &mut buyer).await;
    let mut planted = 0;
    for node in [&seller, &buyer] {
        let secrets = Secrets::of(node);
        planted += secrets.are_found(&world.path("planted"));
        let files = files_under(&node.home.dir);
        let names: Vec<&str> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        for expected in ["seed", "journal.sqlite", "wallet.sqlite", "config.toml", "log", "peers.json"] {
            assert!(names.contains(&expected), "{expected} is among {names:?}");
        }
        let log = fs::read(node.home.log()).unwrap();
        assert!(String::from_utf8_lossy(&log).contains("TRACE"), "the log tells everything");
        let process = ["cmdline", "environ"].map(|name| PathBuf::from(format!("/proc/{}/{name}", node.pid())));
        let beside = [node.home.dir.with_extension("backup"), node.home.dir.with_extension("said")];
        for file in files.iter().chain(&beside).chain(&process) {
            if process.contains(file) && fs::read(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            {
                // No other process of its user may look.
                continue;
            }
            let found = secrets.found_in(file);
            assert!(found.is_empty(), "{found:?} in {}", file.display());
        }
    }
    println!("faults fired: {planted} (secrets planted, and found)");
    assert!(planted > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_is_closed_to_others_whatever_the_umask() {
    // A shell that opens everything to everybody, and then is the node.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("careless");
    let script = format!("#!/bin/sh\numask 000\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_pedlar-under-test"));
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    let world = World::new(path(&program)).await;
    let (mut seller, mut buyer) = (world.node("seller").await, world.node("buyer").await);
    trade(&world, &mut seller, &mut buyer).await;
    let mut seen = 0;
    for node in [&seller, &buyer] {
        for entry in walk(&node.home.dir) {
            let found = fs::symlink_metadata(&entry).unwrap();
            let allowed = if found.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(found.permissions().mode() & 0o777, allowed, "{}", entry.display());
            seen += 1;
        }
        for beside in ["words", "backup"] {
            let mode = fs::metadata(node.home.dir.with_extension(beside)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{beside}");
        }
    }
    assert!(seen > 20, "{seen} files and folders");
    // The script did what it says: what is made without a mode of its own is open.
    let mode = fs::metadata(world.path("bought")).unwrap().permissions().mode();
    println!("faults fired: {seen} (things made under umask 000; a bought file has mode {:o})", mode & 0o777);
}

/// All that a node does with files: published as it lies, as a copy, and as a folder; paid, bought, broken off, gone on
/// with; backed up; killed and brought up again.
async fn trade(world: &World, seller: &mut Peer, buyer: &mut Peer) {
    world.fund(buyer).await;
    let folder = world.path("folder");
    fs::create_dir(&folder).unwrap();
    fs::copy(world.file("song", MIB), folder.join("song")).unwrap();
    let film = seller.publish(&world.file("film", MIB), PRICE).await;
    seller.ask(&["publish", path(&world.file("copied", MIB)), "--price", PRICE, "--copy"]).await;
    let songs = seller.publish(&folder, PRICE).await;
    buyer.ask(&["get", &film, "-o", path(&world.path("bought")), "--prepay", "1000sat", "--yes"]).await;
    buyer.kill().await;
    buyer.restart().await;
    buyer.ask(&["get", &songs, "-o", path(&world.path("songs"))]).await;
    agreed(seller, buyer).await;
    for node in [seller, buyer] {
        node.stop().await;
        node.restart().await;
        let backup = node.home.dir.with_extension("backup");
        node.ask(&["backup", "create", path(&backup)]).await;
        // What verbs say is on its way to terminals, pipes and their logs.
        let mut said = String::new();
        for verb in
            [&["status"][..], &["config", "show", "--origin"], &["account", "list"], &["wallet", "history"], &["peers"]]
        {
            node.ask(verb).await.iter().for_each(|line| said.push_str(&format!("{line}\n")));
        }
        let (_, lines) = node.begin(&["doctor"]).ends().await;
        lines.iter().for_each(|line| said.push_str(&format!("{line}\n")));
        fs::write(node.home.dir.with_extension("said"), said).unwrap();
    }
}

/// A node with a passphrase that no other file has by accident, and a log that tells everything.
async fn secretive(world: &World, name: &str) -> Peer {
    let home = world.home(name);
    let passphrase = format!("{name}'s Kennwort 7d1f0a9c");
    fs::write(home.passphrase_file(), &passphrase).unwrap();
    let (pass, words) = (home.passphrase_file(), home.dir.with_extension("words"));
    let network = world.network();
    let id = network.strip_prefix("regtest-").unwrap();
    let url = world.electrum.url();
    let verb = ["init", "--network", "regtest", "--network-id", id, "--electrum", &url];
    let files = ["--words-file", path(&words), "--passphrase-file", path(&pass)];
    Verb::begin(&home, &[&verb[..], &files].concat()).succeeds().await;
    let config = home.dir.join("config.toml");
    fs::write(&config, format!("{LOUD}{}", fs::read_to_string(&config).unwrap())).unwrap();
    world.start(home).await
}

/// What must be found nowhere, in every form in which it could be written down.
struct Secrets {
    forms: Vec<(String, Vec<u8>)>,
}

impl Secrets {
    fn of(node: &Peer) -> Self {
        let phrase = fs::read_to_string(node.home.dir.with_extension("words")).unwrap().trim().to_owned();
        let mnemonic: Mnemonic = phrase.parse().unwrap();
        let seed = mnemonic.to_seed("");
        let mut secrets = Self { forms: Vec::new() };
        let words: Vec<&str> = phrase.split(' ').collect();
        for run in words.windows(TELLING_WORDS) {
            for between in [" ", "\n", ", ", "\",\"", "\", \""] {
                secrets.forms.push((format!("words joined by {between:?}"), run.join(between).into_bytes()));
            }
        }
        secrets.add("entropy", &mnemonic.to_entropy());
        secrets.add("seed", &seed);
        let keys = Words::parse(&phrase).unwrap().keys();
        for context in CONTEXTS {
            secrets.add(context, keys.derive(context).as_slice());
        }
        let secp = Secp256k1::new();
        let mut master = Xpriv::new_master(bitcoin::Network::Regtest, &seed).unwrap();
        let account: DerivationPath = "m/84'/1'/0'".parse().unwrap();
        for (name, key) in [("master key", master), ("account key", master.derive_priv(&secp, &account).unwrap())] {
            secrets.add(name, &key.private_key.secret_bytes());
            secrets.forms.push((format!("{name} as text"), key.to_string().into_bytes()));
        }
        master.network = NetworkKind::Main;
        secrets.forms.push(("master key as text of mainnet".to_owned(), master.to_string().into_bytes()));
        for prefix in ["tprv8", "xprv9", "AGE-SECRET-KEY-"] {
            secrets.forms.push((format!("something that begins with {prefix}"), prefix.as_bytes().to_vec()));
        }
        let passphrase = fs::read(node.home.passphrase_file()).unwrap();
        secrets.add("passphrase", &passphrase);
        secrets
    }

    /// A secret as bytes, and as what libraries make of bytes.
    fn add(&mut self, name: &str, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = |between: &str| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes();
        let mut forms = vec![
            ("raw", secret.to_vec()),
            ("in hex", hex.clone().into_bytes()),
            ("in upper hex", hex.to_uppercase().into_bytes()),
            ("as a list of numbers", list(", ")),
            ("as a JSON list of numbers", list(",")),
            ("in base58", bitcoin::base58::encode(secret).into_bytes()),
            ("in base58 with a checksum", bitcoin::base58::encode_check(secret).into_bytes()),
        ];
        // Wherever it stands in what was encoded, and without the letters that its neighbours share.
        for before in 0..3 {
            let shifted = [&[0; 2][..before], secret].concat();
            for (name, encoded) in [
                ("in base64", STANDARD_NO_PAD.encode(&shifted)),
                ("in base64 of URLs", URL_SAFE_NO_PAD.encode(&shifted)),
            ] {
                let own = &encoded.as_bytes()[(before * 8).div_ceil(6)..shifted.len() * 8 / 6];
                forms.push((name, own.to_vec()));
            }
        }
        self.forms.extend(forms.into_iter().map(|(form, bytes)| (format!("{name} {form}"), bytes)));
    }

    fn found_in(&self, file: &Path) -> Vec<&str> {
        let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.found(&bytes)
    }

    fn found(&self, bytes: &[u8]) -> Vec<&str> {
        // A character for each byte: then texts are searched, which is fast.
        let letters = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
        let all = letters(bytes);
        self.forms.iter().filter(|(_, form)| all.contains(&letters(form))).map(|(name, _)| name.as_str()).collect()
    }

    /// Plants each form in the middle of other bytes and finds it again, or the search would prove nothing; how many.
    fn are_found(&self, file: &Path) -> usize {
        for (name, form) in &self.forms {
            fs::write(file, [&[7; 1000][..], form, b" and more"].concat()).unwrap();
            assert!(self.found_in(file).contains(&name.as_str()), "{name} is planted and not found");
        }
        fs::write(file, [7; 1000]).unwrap();
        assert!(self.found_in(file).is_empty());
        fs::remove_file(file).unwrap();
        self.forms.len()
    }
}

/// Every file and folder in a folder, itself included.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let deeper = inside.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] });
    std::iter::once(dir.to_owned()).chain(deeper).collect()
}

/// Every regular file in a folder.
fn files_under(dir: &Path) -> Vec<PathBuf> {
    walk(dir).into_iter().filter(|path| path.is_file()).collect()
}
