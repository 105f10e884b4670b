//! What an older program left is read by this one, wherever the power goes while it is brought up to date.
//!
//! The homes are those that version 1 of both files left after one purchase: an advance of 5,000 sat, 3,000,000 bytes at
//! 7,000 sat/GiB. Their chain is gone, so they are brought up without a server.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pedlar_devnet::node::{Home, Node};
use pedlar_tests::cluster::{Place, Tab, Verb, number, path as path_of, text};
use rusqlite::Connection;

const ELECTRUM: &str = "tcp://127.0.0.1:1";
const NETWORK_ID: &str = "5c6103d0";
const FILES: [&str; 2] = ["wallet", "journal"];

/// The version of the homes.
const OLD: u32 = 1;

/// Power cuts on the way up; more syncs than any start makes.
const MOST_CUTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn homes_of_version_1_keep_their_money() {
    let place = place();
    for old in ["buyer", "seller"] {
        let home = lay_out(&place, old, old);
        check(home.clone(), old).await;
        for file in FILES {
            let copy = home.dir.join(format!("{file}.sqlite.v{OLD}.backup"));
            assert_eq!(version(&copy), OLD);
            assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(version(&home.dir.join(format!("{file}.sqlite"))) > OLD);
        }
        // Once is enough.
        check(home, old).await;
    }
}

/// CHECKS.md R2: the power goes at each sync in turn, until a start comes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_leaves_the_old_version_or_the_new_one() {
    if !can_trace() {
        println!("SKIPPED: strace can't be used here (apt-get install strace), so no sync is cut off");
        return;
    }
    let place = place();
    // Of how many files each cut left the new version.
    let mut seen = [0; 3];
    for file in FILES {
        let cuts = (1..=MOST_CUTS).take_while(|sync| {
            let old = if sync % 2 == 0 { "seller" } else { "buyer" };
            let home = lay_out(&place, &format!("{file}-{sync}"), old);
            let cut = is_cut_off_at(&home, file, *sync);
            let new = FILES.map(|file| version(&home.dir.join(format!("{file}.sqlite"))) > OLD);
            seen[new.iter().filter(|new| **new).count()] += usize::from(cut);
            cut
        });
        for sync in cuts.collect::<Vec<_>>() {
            let old = if sync % 2 == 0 { "seller" } else { "buyer" };
            check(place.home(&format!("{file}-{sync}")), old).await;
        }
    }
    println!("faults fired: {}; files of the new version after them: 0, 1, 2 in {seen:?}", seen.iter().sum::<usize>());
    assert!(seen[0] >= 3 && seen[1] >= 3, "too few cuts hit the way from one version to the other: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_of_a_newer_program_is_refused_and_left_as_it_is() {
    let place = place();
    for file in FILES {
        let home = lay_out(&place, file, "buyer");
        let path = home.dir.join(format!("{file}.sqlite"));
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 77).unwrap();
        let before = contents(&home);
        let passphrase = home.passphrase_file();
        let up = ["up", "--listen", "/ip4/127.0.0.1/tcp/0", "--passphrase-file", path_of(&passphrase)];
        let error = Verb::begin(&home, &up).fails(1).await;
        assert_eq!(error["code"], "newer", "{error}");
        let message = text(&error["message"]);
        assert!(message.contains(&format!("{file}.sqlite is of version 77")), "{message}");
        assert!(text(&error["hint"]).contains("a newer one"), "{error}");
        // Neither of the files: the other one is not climbed, either.
        assert!(contents(&home) == before, "{:?}", contents(&home).keys());
    }
}

/// What the files of a home say, and those beside them.
fn contents(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let found = fs::read_dir(&home.dir).unwrap().map(|entry| entry.unwrap());
    let named = found.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named.filter(|(name, _)| name.contains("sqlite")).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_pedlar-under-test"), ELECTRUM.into(), NETWORK_ID.into())
}

/// Makes a home of version 1.
fn lay_out(place: &Place, name: &str, old: &str) -> Home {
    let (home, fixture) = (place.home(name), fixture(old));
    fs::DirBuilder::new().mode(0o700).create(&home.dir).unwrap();
    let config = format!("network = \"regtest\"\nnetwork_id = {NETWORK_ID:?}\nelectrum = [{ELECTRUM:?}]\n");
    fs::write(home.dir.join("config.toml"), config).unwrap();
    fs::copy(fixture.join("seed"), home.dir.join("seed")).unwrap();
    fs::write(home.passphrase_file(), "devnet").unwrap();
    for file in FILES {
        let db = Connection::open(home.dir.join(format!("{file}.sqlite"))).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        // A dump has the rows of some tables before those that they name.
        db.pragma_update(None, "foreign_keys", false).unwrap();
        db.execute_batch(&fs::read_to_string(fixture.join(format!("{file}.sql"))).unwrap()).unwrap();
    }
    for entry in fs::read_dir(&home.dir).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o600)).unwrap();
    }
    home
}

fn fixture(old: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/version-1").join(old)
}

/// Brings a home up and sees that all of its money is there.
async fn check(home: Home, old: &str) {
    let node = Node::start(home.clone(), 0, &[]).await.expect("an old home comes up");
    let account = home.one(&["account", "list"], "account").await.expect("an account");
    let side = if old == "buyer" { "bought" } else { "sold" };
    assert_eq!(Tab::of(&account[side]), Tab { paid: 5_000_000, spent: 19_558 });
    let history = home.ask(&["wallet", "history"]).await.expect("a history");
    let paid: Vec<_> = history.iter().filter(|line| line["type"] == "tx").map(|tx| text(&tx["txid"])).collect();
    let advance = "b258f36310a3a374230098e6be69a7120ef6e63d9897a96b5c698f583504f093";
    assert!(paid.contains(&advance), "{history:?}");
    let balance = home.one(&["wallet", "balance"], "balance").await.expect("a balance");
    let expected = if old == "buyer" { 994_859 } else { 1_005_000 };
    assert_eq!(number(&balance["confirmed_sat"]), expected);
    node.stop().await.expect("it goes down");
}

/// The version of a file that nobody has open, as the next start will find it.
fn version(file: &Path) -> u32 {
    let db = Connection::open(file).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// Whether a start on this home is killed at the sync of this number that concerns the file; otherwise it came up, and
/// was taken down.
fn is_cut_off_at(home: &Home, file: &str, sync: usize) -> bool {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    // The file, the copy on its way, and the folder that names both.
    for name in ["", "-wal", ".v1.backup.part", ".v1.backup.part-journal", ".v1.backup.part-wal"] {
        traced.arg("-P").arg(home.dir.join(format!("{file}.sqlite{name}")));
    }
    traced.arg("-P").arg(&home.dir);
    traced.args(["-e", &format!("inject=fsync,fdatasync:signal=KILL:when={sync}")]);
    let passphrase = home.passphrase_file();
    let up = home.command(&["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--passphrase-file"]);
    let up = up.as_std();
    traced.arg(up.get_program()).args(up.get_args()).arg(passphrase);
    traced.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = traced.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    if line.is_empty() {
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
        return true;
    }
    assert!(line.contains("\"ready\""), "{line}");
    let down = home.command(&["down"]).as_std_mut().stdout(Stdio::null()).status().unwrap();
    // Also on the way down it may be cut off.
    let _ = (down, child.wait().unwrap());
    false
}
