//! An Electrum server that says anything, against the whole wallet: client, coins, payments and file.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::mem;
use std::panic;
use std::path::Path;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use bitcoin::{Address, Amount, Transaction, Txid, consensus::encode::deserialize_hex};
use bytes::BytesMut;
use pedlar_devnet::chain::Chain;
use pedlar_devnet::electrum::Session;
use pedlar_wallet::channel::{ChannelId, Role, Terms};
use pedlar_wallet::{
    Incoming, MAX_FEE_RATE_SAT_VB, Network, OpenError, PayeeRef, Payment, PaymentId, Rehearsal, ServerFault,
    ServerState, StoreError, WalletEvent, Words,
};
use serde_json::{Value, json};

use crate::files::folder;

/// Turns of the wallet in one run.
const TURNS: usize = 16;
const PAYEE: PayeeRef = PayeeRef([7; 32]);
const PAYMENT: PaymentId = PaymentId([1; 32]);
const PAID_SAT: u64 = 30_000;
/// A channel between us and us: one of each side.
const BOUGHT: ChannelId = ChannelId([2; 32]);
const SOLD: ChannelId = ChannelId([3; 32]);
const CAPACITY_SAT: u64 = 20_000;
const VOUCHER_SAT: u64 = 5_000;
/// One coin, the payment and the change.
const MAX_VBYTES: u64 = 141;

/// A wallet with a coin, a payment to a stranger, one from a payee, and a channel of which it is both sides and which it
/// closes, before a server whose every reply may be changed,
/// withheld, or be about another chain.
///
/// Whatever comes: a fault leaves the wallet as it was, the payment is made once and as it was asked for, only what was
/// signed is sent, and what the wallet holds is what it finds on its disk afterwards.
pub fn electrum(data: &[u8]) {
    tell_libraries_panics_apart();
    let played = panic::catch_unwind(|| play(data));
    played.unwrap_or_else(|payload| {
        eprintln!("{}", lock(&LAST_PANIC));
        panic::resume_unwind(payload)
    });
}

fn play(data: &[u8]) {
    let stage = Stage::get();
    let dir = folder().path().join("wallet");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a folder");
    fs::write(dir.join("wallet.sqlite"), &stage.wallet).expect("a wallet");
    let mut wallet = open(&dir);
    let mut signed: BTreeSet<_> = stage.signed.iter().copied().chain([stage.paid.txid]).collect();
    let server = Arc::new(Mutex::new(Server::new(stage.chain.fork(), data)));
    for _ in 0..TURNS {
        let Some((what, ahead)) = lock(&server).between_turns() else { break };
        match what {
            7 => wallet = reopen(wallet, &dir),
            8 => drop(
                current(&mut wallet).txid.map(|txid| wallet.bump(txid)).map(|bump| signed.extend(bump.map(|b| b.txid))),
            ),
            _ => {}
        }
        let before = Snapshot::of(&mut wallet);
        let connect = || Wire::to(&server);
        wallet.turn(ahead, connect).expect("a disk that works");
        let after = Snapshot::of(&mut wallet);
        // That one is found out when everything else it said was taken in.
        if after.fault.as_ref().is_some_and(|fault| *fault != ServerFault::Omits) && before.fault.is_none() {
            assert_eq!(before.money, after.money, "{:?}", after.fault);
        }
        assert!(lock(&server).sent.iter().all(|txid| signed.contains(&Some(*txid))), "it sent what was never signed");
        check(&mut wallet, stage, &signed);
    }
    let paid = current(&mut wallet);
    assert_eq!(wallet.pay(PAYMENT, stranger(), PAID_SAT).expect("what is paid"), [paid]);
    reopen(wallet, &dir);
}

/// What holds at any moment.
fn check(wallet: &mut Rehearsal, stage: &Stage, signed: &BTreeSet<Option<Txid>>) {
    let status = wallet.status().expect("rows");
    assert!(status.confirmed_sat + status.pending_sat <= Amount::MAX_MONEY.to_sat());
    let paid = current(wallet);
    assert_eq!((paid.sat, &paid.address, paid.created_ms), (PAID_SAT, &stage.paid.address, stage.paid.created_ms));
    assert!(signed.contains(&paid.txid) && paid.fee_sat.is_some_and(|fee| fee <= MAX_VBYTES * MAX_FEE_RATE_SAT_VB));
    while let Some(event) = wallet.poll_event().expect("rows") {
        if let WalletEvent::Incoming(Incoming { payee, sat, .. }) = event {
            assert!(payee == PAYEE && sat <= Amount::MAX_MONEY.to_sat());
        } else if let WalletEvent::Channel(fact) = event {
            assert!(fact.capacity_sat == CAPACITY_SAT && signed.contains(&Some(fact.funding.txid)));
        }
    }
}

fn current(wallet: &mut Rehearsal) -> Payment {
    wallet.payment(PAYMENT).expect("rows").expect("it was asked for")
}

/// Closes and opens the wallet, which then is what it was.
fn reopen(mut wallet: Rehearsal, dir: &Path) -> Rehearsal {
    let held = Snapshot::of(&mut wallet).money;
    drop(wallet);
    let mut wallet = open(dir);
    assert_eq!(held, Snapshot::of(&mut wallet).money, "in memory and on the disk");
    wallet
}

/// What the wallet says of itself.
pub(crate) struct Snapshot {
    fault: Option<ServerFault>,
    money: String,
}

impl Snapshot {
    fn of(wallet: &mut Rehearsal) -> Self {
        Self::try_of(wallet).expect("rows")
    }

    pub(crate) fn try_of(wallet: &mut Rehearsal) -> Result<Self, StoreError> {
        let status = wallet.status()?;
        let fault = status.servers.iter().find_map(|server| match &server.state {
            ServerState::Down(fault) => Some(fault.clone()),
            ServerState::Connecting | ServerState::Up | ServerState::Standby => None,
        });
        let mut history = wallet.history()?;
        history.sort_by_key(|entry| entry.txid);
        let sums =
            (status.tip_hash, status.confirmed_sat, status.pending_sat, status.reserved_sat, status.channels_sat);
        let payment = wallet.payment(PAYMENT)?;
        Ok(Self { fault, money: format!("{sums:?} {payment:?} {history:#?}") })
    }
}

/// Where every run begins.
pub(crate) struct Stage {
    chain: Chain,
    wallet: Vec<u8>,
    paid: Payment,
    /// What it signed beside that payment.
    signed: [Option<Txid>; 2],
}

impl Stage {
    pub(crate) fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(Self::set)
    }

    /// The wallet's file.
    pub(crate) fn wallet(&self) -> &[u8] {
        &self.wallet
    }

    fn set() -> Self {
        let dir = folder().path().join("stage");
        let chain = Chain::new(b"fuzz");
        let mut wallet = open(&dir);
        let own = wallet.receive_address().expect("an address");
        let payees = wallet.address_for(PAYEE).expect("an address");
        // One for the payment, whichever it takes, and one for the channel.
        for sat in [100_000, 60_000] {
            chain.fund(&own, Amount::from_sat(sat)).expect("a coin");
        }
        chain.mine_to_self(1);
        chain.fund(&payees, Amount::from_sat(5_000)).expect("a payment");
        let server = Arc::new(Mutex::new(Server::new(chain.clone(), &[])));
        while wallet.turn(Duration::ZERO, || Wire::to(&server)).expect("a disk") {}
        let paid = wallet.pay(PAYMENT, stranger(), PAID_SAT).expect("it has a coin");
        let signed = open_and_close(&mut wallet);
        drop(wallet);
        let file = fs::read(dir.join("wallet.sqlite")).expect("the wallet's file");
        let paid = paid.into_iter().next().expect("one payment");
        Self { chain, wallet: file, paid, signed }
    }
}

/// Opens the channel and closes it at once, neither sent yet.
fn open_and_close(wallet: &mut Rehearsal) -> [Option<Txid>; 2] {
    let buyer = wallet.channel_key(BOUGHT, Role::Buyer).expect("a key");
    let seller = wallet.channel_key(SOLD, Role::Seller).expect("a key");
    let terms = Terms {
        buyer_pk: buyer.public_key,
        seller_pk: seller.public_key,
        capacity_sat: CAPACITY_SAT,
        expiry_height: 1_000,
        change_spk: buyer.change_spk.expect("a buyer's"),
        close_fee_sat: 500,
    };
    let funding = wallet.fund_channel(BOUGHT, &terms).expect("it has a coin");
    wallet.watch_channel(SOLD, &terms, &funding.raw, funding.outpoint.vout).expect("the same channel");
    let voucher = wallet.sign_voucher(BOUGHT, VOUCHER_SAT).expect("there is room");
    let close = wallet.close_channels(&[(SOLD, voucher)]).expect("it is worth its fee");
    [Some(funding.outpoint.txid), Some(close.txid)]
}

fn open(dir: &Path) -> Rehearsal {
    try_open(dir).expect("a wallet")
}

pub(crate) fn try_open(dir: &Path) -> Result<Rehearsal, OpenError> {
    const PHRASE: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    Rehearsal::open(dir, Words::parse(PHRASE).expect("words").keys())
}

fn stranger() -> Address {
    Network::Regtest.parse_address("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").expect("an address")
}

/// What the last panic of a library said: it is a finding only if the wallet doesn't catch it.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// The libraries index and assert on what a server says, and the wallet catches that, so the hook of libFuzzer's
/// bindings, which ends the process at any panic, goes. One of ours (their paths are relative) ends it still.
fn tell_libraries_panics_apart() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            if info.location().is_none_or(|at| !at.file().starts_with('/')) {
                eprintln!("{info}");
                process::abort();
            }
            *lock(&LAST_PANIC) = info.to_string();
        }));
    });
}

/// An honest server, and the bytes that say where it isn't.
struct Server {
    chain: Chain,
    session: Session,
    script: VecDeque<u8>,
    request: Vec<u8>,
    reply: VecDeque<u8>,
    last: Value,
    /// The connection is gone.
    closed: bool,
    /// Transactions that it was given.
    sent: BTreeSet<Txid>,
}

impl Server {
    fn new(chain: Chain, script: &[u8]) -> Self {
        Self {
            session: Session::new(chain.clone()),
            chain,
            script: script.iter().copied().collect(),
            request: Vec::new(),
            reply: VecDeque::new(),
            last: Value::Null,
            closed: false,
            sent: BTreeSet::new(),
        }
    }

    fn next(&mut self) -> u8 {
        self.script.pop_front().unwrap_or_default()
    }

    fn take(&mut self) -> Vec<u8> {
        let len = usize::from(self.next()).min(self.script.len());
        self.script.drain(..len).collect()
    }

    /// What happens on the chain meanwhile, and how much later the next turn is; nothing at the end of the script.
    fn between_turns(&mut self) -> Option<(u8, Duration)> {
        let what = self.script.pop_front()?;
        match what >> 4 {
            1 => drop(self.chain.mine_to_self(1)),
            2 => drop(self.chain.mine_to_self(7)),
            3 => drop(self.chain.reorg(1)),
            4 => drop(self.chain.reorg(6)),
            // Another chain from here on, or what was in the mempool is gone.
            5 => self.chain = Stage::get().chain.fork(),
            6 => self.chain = Chain::new(b"other"),
            _ => {}
        }
        if let 5 | 6 = what >> 4 {
            self.session = Session::new(self.chain.clone());
        }
        if what & 8 == 0 {
            let mut news = BytesMut::new();
            self.session.handle_change(&mut news);
            self.reply.extend(&news);
        }
        let ahead_s = [0, 6, 11, 61][usize::from(what & 3)];
        Some((what >> 4, Duration::from_secs(ahead_s)))
    }

    fn connect_anew(&mut self) {
        self.closed = false;
        self.request.clear();
        self.reply.clear();
        self.session = Session::new(self.chain.clone());
    }

    /// Takes in what the wallet wrote; each whole line is answered.
    fn hear(&mut self, bytes: &[u8]) {
        self.request.extend(bytes);
        while let Some(end) = self.request.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.request.drain(..=end).collect();
            let asked: Value = serde_json::from_slice(&line).expect("the wallet speaks JSON");
            if asked["method"] == "blockchain.transaction.broadcast" {
                let tx: Transaction =
                    deserialize_hex(asked["params"][0].as_str().expect("hex")).expect("a transaction");
                self.sent.insert(tx.compute_txid());
            }
            self.answer(&line);
        }
    }

    fn answer(&mut self, line: &[u8]) {
        let mut out = BytesMut::new();
        self.session.handle_line(line, &mut out);
        let honest: Value = serde_json::from_slice(&out).expect("one line of JSON");
        let what = self.next();
        let mut told = honest.clone();
        match what % 16 {
            1 => told["result"] = mem::take(&mut self.last),
            2 => told = json!({ "id": honest["id"], "error": String::from_utf8_lossy(&self.take()) }),
            3 => told["result"] = serde_json::from_slice(&self.take()).unwrap_or_default(),
            4 => told["id"] = json!(self.next()),
            5 | 6 => {
                let (at, number) = (self.next(), self.number());
                replace_number(&mut told["result"], &mut usize::from(at), &number);
            }
            7 | 8 => {
                let (at, by) = (u16::from_be_bytes([self.next(), self.next()]), self.next());
                scratch_text(&mut told["result"], &mut usize::from(at), by);
            }
            9 => shorten(&mut told["result"], self.next()),
            10 => {
                let line = self.take();
                self.reply.extend(line);
            }
            11 => self.closed = true,
            12 => {
                let news = json!({ "method": "blockchain.headers.subscribe", "params": [self.last] });
                self.reply.extend(format!("{news}\n").bytes());
            }
            13 => told = Value::Null,
            _ => {}
        }
        self.last = honest["result"].clone();
        if !self.closed && !told.is_null() {
            self.reply.extend(format!("{told}\n").bytes());
        }
    }

    fn number(&mut self) -> Value {
        match self.next() % 12 {
            0 => json!(-1),
            1 => json!(0),
            2 => json!(u32::MAX),
            3 => json!(u64::MAX),
            4 => json!(i64::MIN),
            5 => json!(1e308),
            6 => json!(0.000_01),
            7 => json!(499_999_999),
            8 => json!(500_000_001),
            9 => json!(10_000_000),
            _ => json!(self.next()),
        }
    }
}

/// Replaces the `at`-th number.
fn replace_number(value: &mut Value, at: &mut usize, by: &Value) {
    match value {
        Value::Number(_) if *at == 0 => *value = by.clone(),
        Value::Number(_) => *at -= 1,
        Value::Array(items) => items.iter_mut().for_each(|item| replace_number(item, at, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace_number(field, at, by)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Replaces the `at`-th letter of all texts, by a hex digit mostly, so that they remain hashes and headers.
fn scratch_text(value: &mut Value, at: &mut usize, by: u8) {
    match value {
        Value::String(text) if *at < text.len() => {
            let digit = char::from_digit(u32::from(by % 17), 16).unwrap_or(char::from(by));
            let scratched = text.char_indices().map(|(place, letter)| if place == *at { digit } else { letter });
            *text = scratched.collect();
            *at = usize::MAX;
        }
        Value::String(text) => *at = at.saturating_sub(text.len()),
        Value::Array(items) => items.iter_mut().for_each(|item| scratch_text(item, at, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| scratch_text(field, at, by)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Leaves something out, or says it twice.
fn shorten(value: &mut Value, by: u8) {
    match value {
        Value::Array(items) if by.is_multiple_of(2) => drop(items.pop()),
        Value::Array(items) => items.extend(items.first().cloned()),
        Value::Object(fields) => {
            let name = fields.keys().nth(usize::from(by) % fields.len().max(1)).cloned();
            name.and_then(|name| fields.remove(&name));
        }
        Value::String(text) => text.truncate(usize::from(by) * 2),
        Value::Null | Value::Bool(_) | Value::Number(_) => *value = Value::Null,
    }
}

/// The wallet's end of the connection.
struct Wire {
    server: Arc<Mutex<Server>>,
}

impl Wire {
    /// A new connection.
    fn to(server: &Arc<Mutex<Server>>) -> Self {
        lock(server).connect_anew();
        Self { server: Arc::clone(server) }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // At the end of what is there the server has closed: nobody is waited for.
        lock(&self.server).reply.read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut server = lock(&self.server);
        if server.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        server.hear(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
