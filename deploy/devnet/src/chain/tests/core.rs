//! The chain beside Bitcoin Core, where `BITCOIND_EXE` names one: the same blocks, the same refusals.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::all::OP_DROP;
use serde_json::{Value, json};

use super::*;

/// `pedlar:pedlar` as HTTP's basic authentication wants it.
const BASIC_AUTH: &str = "cGVkbGFyOnBlZGxhcg==";
/// Core is started, not measured.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn core_accepts_our_blocks_and_refuses_what_we_refuse() {
    let Some(executable) = std::env::var_os("BITCOIND_EXE") else {
        return println!("BITCOIND_EXE is not set: nothing was compared");
    };
    let core = Core::start(Command::new(executable));
    let (chain, payer) = (Chain::new(b"core"), Payer::new(1));
    let coins: Vec<_> = (0..5).map(|_| payer.coin(&chain, 100_000)).collect();
    let tap = payer.coin_at(&chain, &payer.taproot(), 100_000);
    let spent = payer.spend(&[coins[4].clone(), tap.clone()], 1_000);
    chain.submit(&spent).unwrap();
    chain.mine(2, &payer.wpkh().script_pubkey());
    core.follow(&chain, 1);
    chain.reorg(3).unwrap();
    chain.mine(1, &payer.wpkh().script_pubkey());
    let candidates = candidates(&chain, &payer, &coins);
    core.follow(&chain, chain.height() - 5);

    for (name, tx) in &candidates {
        let ours = chain.submit(tx).map(|_| ()).map_err(|refused| first_words(&refused.to_string()));
        let theirs = core.submit(tx).map_err(|refused| first_words(&refused));
        println!("{name}: {ours:?}");
        assert_eq!(ours, theirs, "{name}");
    }
    chain.mine_to_self(1);
    core.follow(&chain, chain.height());
    println!("compared: {}", candidates.len());
}

/// Transactions of every kind, in an order that both mempools see.
fn candidates(chain: &Chain, payer: &Payer, coins: &[Owned]) -> Vec<(&'static str, Transaction)> {
    let one = |change: fn(&mut Transaction)| payer.spend_with(&coins[..1], 1_000, change);
    let tip = chain.height();
    let immature = owned(&chain.block(tip).unwrap().txdata[0]).remove(0);
    let tap = payer.coin_at(chain, &payer.taproot(), 100_000);
    let mut forged = payer.spend(from_ref(&tap), 1_000);
    forged.input[0].witness = Witness::from_slice(&[[7; 64]]);
    let first = payer.spend(&coins[1..2], 1_000);
    let child = payer.spend(&owned(&first), 2_000);
    vec![
        ("version", one(|tx| tx.version = Version(4))),
        ("dust", one(|tx| tx.output.push(TxOut { value: Amount::from_sat(293), ..tx.output[0].clone() }))),
        ("strange script", one(|tx| tx.output[0].script_pubkey = ScriptBuf::from(vec![OP_DROP.to_u8(); 20]))),
        ("small", one(|tx| tx.output[0].script_pubkey = ScriptBuf::new_op_return([]))),
        ("scriptSig that works", one(|tx| tx.input[0].script_sig = ScriptBuf::from(vec![OP_DROP.to_u8()]))),
        ("long scriptSig", one(|tx| tx.input[0].script_sig = ScriptBuf::from(vec![0x51; 1_651]))),
        ("input twice", one(|tx| tx.input.push(tx.input[0].clone()))),
        ("too much out", one(|tx| tx.output[0].value = Amount::MAX_MONEY)),
        ("more than all money", one(|tx| tx.output[0].value = Amount::MAX_MONEY + Amount::ONE_SAT)),
        ("no such coin", one(|tx| tx.input[0].previous_output.vout = 9)),
        ("no fee", payer.spend(&coins[..1], 5)),
        ("immature", payer.spend(&[immature], 1_000)),
        ("a coinbase", chain.block(1).unwrap().txdata[0].clone()),
        ("forged taproot", forged),
        ("taproot", payer.spend(&[tap], 1_000)),
        ("height lock", one(|tx| tx.lock_time = LockTime::from_height(1_000_000).unwrap())),
        ("relative lock", one(|tx| tx.input[0].sequence = Sequence::from_height(100))),
        ("relative time lock", one(|tx| tx.input[0].sequence = Sequence::from_512_second_intervals(2_000))),
        ("first", first.clone()),
        ("child", child),
        ("replacement without more fee", payer.spend(&coins[1..2], 2_500)),
        ("replacement without its own relay", payer.spend(&coins[1..2], 3_020)),
        ("replacement of its own parent", payer.spend(&[coins[1].clone(), owned(&first).remove(0)], 9_000)),
        ("replacement", payer.spend(&coins[1..2], 9_000)),
        ("replacement at a lower rate", payer.spend(&coins[1..4], 9_500)),
        ("plain", one(|_| ())),
    ]
}

/// What a refusal is called, without its numbers.
fn first_words(refusal: &str) -> String {
    refusal.split([',', ';', '(']).next().unwrap_or_default().trim().to_owned()
}

/// A Core of our own, ended when this is dropped.
struct Core {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Core {
    fn start(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; nothing else on this machine is likely to take it at once.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command.arg(format!("-datadir={}", dir.path().display())).arg(format!("-rpcport={port}")).args([
            "-regtest",
            "-server=1",
            "-listen=0",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            "-natpmp=0",
            "-rpcuser=pedlar",
            "-rpcpassword=pedlar",
            "-printtoconsole=0",
            "-minrelaytxfee=0.00001",
            "-incrementalrelayfee=0.00001",
        ]);
        let core = Self { child: command.spawn().unwrap(), port, _dir: dir };
        let end = Instant::now() + PATIENCE;
        while core.try_call("getblockcount", json!([])).is_none_or(|reply| !reply["error"].is_null()) {
            assert!(Instant::now() < end, "bitcoind did not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        core
    }

    /// Gives it the blocks of the chain from this height on; it must end at the same tip.
    fn follow(&self, chain: &Chain, from: u32) {
        for height in from..=chain.height() {
            let reply = self.call("submitblock", json!([serialize_hex(&chain.block(height).unwrap())]));
            let known = ["duplicate", "inconclusive"].map(Value::from).contains(&reply["result"]);
            assert!(known || reply["result"].is_null(), "block {height}: {reply}");
        }
        let tip = self.call("getbestblockhash", json!([]))["result"].clone();
        assert_eq!(tip, json!(chain.block_hash(chain.height()).unwrap()));
    }

    fn submit(&self, tx: &Transaction) -> Result<(), String> {
        let reply = self.call("sendrawtransaction", json!([serialize_hex(tx), 0, 21_000_000]));
        match reply["error"]["message"].as_str() {
            None => Ok(()),
            Some(refusal) => Err(refusal.to_owned()),
        }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap()
    }

    fn try_call(&self, method: &str, params: Value) -> Option<Value> {
        let body = json!({ "id": 1, "method": method, "params": params }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let head = format!("POST / HTTP/1.0\r\nAuthorization: Basic {BASIC_AUTH}\r\nContent-Length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
