//! Words, keys and the passphrase are nowhere but where their owner put them, and nobody else can read a home.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pedlar_tests::cluster::{Peer, path};
use pedlar_wallet::Words;

use crate::{MIB, PRICE, world};

/// The context under which a node derives its identity from its words.
const IDENTITY: &str = "pedlar identity v1";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_file_no_log_no_argument_and_no_environment() {
    let world = world().await;
    let loud = "log = \"debug\"\n";
    let (seller, buyer) = (world.node_with("seller", loud).await, world.node_with("buyer", loud).await);
    world.fund(&buyer).await;
    let link = seller.publish(&world.file("film", MIB), PRICE).await;
    let dest = world.path("bought.bin");
    buyer.ask(&["get", &link, "-o", path(&dest), "--prepay", "1000sat", "--yes"]).await;

    for node in [&seller, &buyer] {
        let secrets = Secrets::of(node);
        // The search finds what is there: else it would prove nothing.
        assert_eq!(secrets.found_in(&secrets.words_file), ["words"]);
        let process = ["cmdline", "environ"].map(|name| PathBuf::from(format!("/proc/{}/{name}", node.pid())));
        let files = files_under(&node.home.dir);
        let names: Vec<&str> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        for expected in ["seed", "journal.sqlite", "wallet.sqlite", "config.toml", "log"] {
            assert!(names.contains(&expected), "{expected} is among {names:?}");
        }
        for file in files.iter().chain(&process) {
            let found = secrets.found_in(file);
            assert!(found.is_empty(), "{found:?} in {}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_is_closed_to_others() {
    let world = world().await;
    let seller = world.node("seller").await;
    seller.ask(&["publish", path(&world.file("film", MIB)), "--price", PRICE, "--copy"]).await;
    let mut seen = 0;
    for entry in walk(&seller.home.dir) {
        let found = fs::symlink_metadata(&entry).unwrap();
        let allowed = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, allowed, "{}", entry.display());
        seen += 1;
    }
    assert!(seen > 10, "{seen} files and folders");
    let words = fs::metadata(world.path("seller.words")).unwrap();
    assert_eq!(words.permissions().mode() & 0o777, 0o600);
}

/// What must be found nowhere, in every form in which it could be written down.
struct Secrets {
    words_file: PathBuf,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Secrets {
    fn of(node: &Peer) -> Self {
        let words_file = node.home.dir.with_extension("words");
        let phrase = fs::read_to_string(&words_file).unwrap().trim().to_owned();
        let identity = Words::parse(&phrase).unwrap().keys().derive(IDENTITY);
        let hex: String = identity.iter().map(|byte| format!("{byte:02x}")).collect();
        let upper = hex.to_uppercase();
        let forms = vec![
            ("words", phrase.into_bytes()),
            ("identity key", identity.to_vec()),
            ("identity key in hex", hex.into_bytes()),
            ("identity key in hex", upper.into_bytes()),
            ("coin key", b"tprv".to_vec()),
        ];
        Self { words_file, forms }
    }

    fn found_in(&self, file: &Path) -> Vec<&'static str> {
        let bytes = fs::read(file).unwrap();
        let holds = |form: &[u8]| bytes.windows(form.len()).any(|window| window == form);
        self.forms.iter().filter(|(_, form)| holds(form)).map(|(name, _)| *name).collect()
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
