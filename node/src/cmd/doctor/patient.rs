//! What is known before anything is judged: asked of the running node, or read from copies of its files.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use libp2p_identity::PeerId;
use libp2p_identity::ed25519::Keypair;
use pedlar_net::{Direction, Multiaddr};
use pedlar_protocol::account::{Entry, EntryError};
use pedlar_protocol::market::{Books, Finding, Market, audit_ledgers};
use pedlar_protocol::time::Timestamp;
use pedlar_protocol::wire::peer_id;
use pedlar_wallet::look_at_servers;
use pedlar_wallet::{FILE_NAME, OpenError, OpenSeedError, Records, SeedFile, Seen, ServerFault, ServerUrl};
use zeroize::Zeroizing;

use crate::cmd::config;
use crate::config::Config;
use crate::driver::{now, wallet_books};
use crate::failure::Failure;
use crate::home::Home;
use crate::identity;
use crate::node::{Node, terms};
use crate::shop::{Shelved, shelved};
use crate::store::{Entries, JournalError, Look};

/// How often the books of a running node are looked at before a finding counts: news of a payment reach the wallet's
/// file first and the accounts a moment later.
const LOOKS: usize = 4;
/// How long after one look the next is taken.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What the checks look at.
pub(super) struct Patient {
    pub(super) home: Home,
    /// The settings that the next start would have.
    pub(super) config: Result<Config, Failure>,
    /// Those in force: of the running node, else of the next start.
    pub(super) settings: Option<Config>,
    /// Whether the passphrase opens the seed file; nothing where there is none to try.
    pub(super) opened: Option<Result<(), OpenSeedError>>,
    pub(super) running: Option<Vitals>,
    pub(super) journal: Journal,
    /// The wallet's file; nothing where there is none yet.
    pub(super) wallet: Result<Option<Records>, OpenError>,
    /// What is wrong with the accounts; nothing where they can't be told.
    pub(super) findings: Option<Audit>,
    pub(super) now: Timestamp,
    servers: OnceLock<Vec<(ServerUrl, Result<Seen, ServerFault>)>>,
}

/// What only a running node knows.
pub(super) struct Vitals {
    pub(super) me: PeerId,
    /// What was asked for.
    pub(super) wanted: Vec<Multiaddr>,
    /// What came of it.
    pub(super) listen: Vec<Multiaddr>,
    pub(super) peers: usize,
    /// Peers that dialled us.
    pub(super) inbound: usize,
    /// Whether anything is for sale.
    pub(super) sells: bool,
    /// Why something can't be written.
    pub(super) trouble: Option<String>,
}

/// The journal's file.
pub(super) enum Journal {
    /// There is none yet.
    Missing,
    /// It can't be read at all.
    Unreadable(JournalError),
    /// It can be read.
    Read(Rows),
}

/// What a journal's rows say.
pub(super) struct Rows {
    /// How many rows of accounts there are; nothing where nobody knows whose they are.
    pub(super) entries: Option<usize>,
    pub(super) damaged: Vec<(i64, EntryError)>,
    pub(super) goods: Vec<Shelved>,
    /// Rows of published files that can't be read.
    pub(super) unread_goods: usize,
}

/// What an audit came to.
pub(super) struct Audit {
    pub(super) accounts: usize,
    pub(super) findings: Vec<Finding>,
}

impl Patient {
    /// Asks a running node.
    ///
    /// # Errors
    /// When the journal's thread or the wallet's has ended: the node goes down.
    pub(super) async fn of_node(node: &Node) -> Result<Self, Failure> {
        let home = node.home.home().clone();
        let peers = node.net.peers().await;
        let status = node.driver.wallet().status().borrow().clone();
        let trouble = node.driver.store().trouble().map(|trouble| format!("the journal: {trouble}"));
        let vitals = Vitals {
            me: node.net.peer_id(),
            wanted: node.config.listen.clone(),
            listen: node.net.listen_addrs(),
            peers: peers.len(),
            inbound: peers.iter().filter(|peer| peer.direction == Direction::Inbound).count(),
            sells: node.driver.read(|market| !market.shop().is_closed()),
            trouble: trouble.or(status.unwritten),
        };
        let findings = audit_node(node).await;
        let (path, me) = (home.journal(), vitals.me);
        let journal = tokio::task::spawn_blocking(move || Journal::at(Look::at_live(&path), Some(&me)).0);
        Ok(Self {
            config: config::here(&home).map(|(config, _)| config),
            settings: Some(node.config.clone()),
            opened: None,
            running: Some(vitals),
            journal: journal.await.map_err(Failure::system)?,
            wallet: node.driver.wallet().records().await.map(Some),
            findings: Some(findings),
            now: now(),
            servers: OnceLock::new(),
            home,
        })
    }

    /// Reads the files of a home in which no node runs; with the passphrase the accounts can be told, too.
    pub(super) fn of_home(home: Home, passphrase: Option<Zeroizing<String>>) -> Self {
        let keys = passphrase.map(|passphrase| SeedFile::open(&home.seed(), &passphrase));
        let (key, opened) = match keys {
            Some(Ok(keys)) => (identity::keypair(&identity::secret(&keys)), Some(Ok(()))),
            Some(Err(error)) => (None, Some(Err(error))),
            None => (None, None),
        };
        let me = key.as_ref().map(peer_id);
        let config = config::here(&home).map(|(config, _)| config);
        let settings = config.as_ref().ok().cloned();
        let (journal, entries, wallet) = match copy_of(&home) {
            Ok(copy) => {
                let (journal, entries) = match copy.path().join(JOURNAL) {
                    path if path.exists() => Journal::at(Look::at_copy(&path), me.as_ref()),
                    _ => (Journal::Missing, Vec::new()),
                };
                let wallet = copy.path().join(FILE_NAME).exists().then(|| Records::read(copy.path())).transpose();
                (journal, entries, wallet)
            }
            Err(error) => (Journal::Unreadable(JournalError::Copy(error)), Vec::new(), Ok(None)),
        };
        let records = wallet.as_ref().ok().and_then(Option::as_ref);
        let findings = match (key, &settings, &journal) {
            (Some(key), Some(config), Journal::Read(rows)) if rows.damaged.is_empty() => {
                audit_home(key, config, &entries, records)
            }
            _ => None,
        };
        let (now, servers) = (now(), OnceLock::new());
        Self { home, config, settings, opened, running: None, journal, wallet, findings, now, servers }
    }

    /// Each configured Electrum server as it is now; asked once, which may take a minute.
    pub(super) fn servers(&self) -> &[(ServerUrl, Result<Seen, ServerFault>)] {
        self.servers.get_or_init(|| {
            let records = self.wallet.as_ref().ok().and_then(Option::as_ref).cloned().unwrap_or_default();
            let look = |config: &Config| look_at_servers(config.network, &records, &config.electrum);
            self.settings.as_ref().map(look).unwrap_or_default()
        })
    }
}

impl Journal {
    /// The rows of a journal, those of accounts where it is known whose they are.
    fn at(look: Result<Look, JournalError>, me: Option<&PeerId>) -> (Self, Vec<Entry>) {
        let read = || {
            let look = look?;
            let read = me.map(|me| look.entries(me)).transpose()?;
            let (goods, unread_goods) = shelved(look.db())?;
            let entries = read.as_ref().map(|read| read.good.len() + read.damaged.len());
            let Entries { good, damaged } = read.unwrap_or_default();
            Ok((Self::Read(Rows { entries, damaged, goods, unread_goods }), good))
        };
        read().unwrap_or_else(|error| (Self::Unreadable(error), Vec::new()))
    }
}

/// The name of the journal in a copy.
const JOURNAL: &str = "journal.sqlite";

/// Copies of both files of SQLite, with what a crash left beside them: to open the files themselves would change them.
fn copy_of(home: &Home) -> io::Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    let whole = |from: &Path, name: &str| match fs::copy(from, copy.path().join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    };
    for (file, name) in [(home.journal(), JOURNAL), (home.wallet().join(FILE_NAME), FILE_NAME)] {
        whole(&file, name)?;
        let log = format!("{name}-wal");
        whole(&file.with_file_name(&log), &log)?;
    }
    Ok(copy)
}

/// The accounts of a running node beside its wallet's file; only what stays is found.
async fn audit_node(node: &Node) -> Audit {
    let mut look = 1;
    loop {
        let wallet = node.driver.wallet().records().await.map(|records| wallet_books(&records)).ok();
        let audit = node.driver.read(|market| Audit {
            accounts: market.accounts().count(),
            findings: audit_ledgers(&[Books { market, wallet: wallet.as_ref() }]),
        });
        if audit.findings.is_empty() || look == LOOKS {
            return audit;
        }
        look += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// The accounts as the next start would restore them.
fn audit_home(key: Keypair, config: &Config, entries: &[Entry], wallet: Option<&Records>) -> Option<Audit> {
    // Which regtest chain it is, no rule of the audit asks for.
    let network = config.network.to_string().parse().ok()?;
    let mut market = Market::new(key, network, terms(config), now());
    entries.iter().for_each(|entry| market.restore(entry));
    market.handle_tip(wallet.map_or(0, |wallet| u64::from(wallet.tip_height)));
    market.handle_restored();
    let books = wallet.map(wallet_books);
    let findings = audit_ledgers(&[Books { market: &market, wallet: books.as_ref() }]);
    Some(Audit { accounts: market.accounts().count(), findings })
}
