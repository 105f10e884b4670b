//! The server through a real client library, and through raw sockets where a library would be too polite.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Amount, ScriptBuf, Transaction};
use electrum_client::utils::validate_merkle_proof;
use electrum_client::{Client, ElectrumApi};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::*;
use crate::chain::tests::{Payer, owned};
use crate::chain::{FIRST_BLOCKS, ScriptHash};

/// Far above what anything takes on loopback; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    runtime: Runtime,
    chain: Chain,
    server: ElectrumServer,
    payer: Payer,
}

impl Served {
    fn new(tag: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let chain = Chain::new(tag.as_bytes());
        let server = runtime.block_on(ElectrumServer::spawn(chain.clone(), "127.0.0.1:0")).unwrap();
        Self { runtime, chain, server, payer: Payer::new(1) }
    }

    fn client(&self) -> Client {
        Client::new(&self.server.url()).unwrap()
    }

    fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.server.local_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw(BufReader::new(stream))
    }

    fn script(&self) -> ScriptBuf {
        self.payer.wpkh().script_pubkey()
    }
}

/// A socket that says what it is told to.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(format!("{}\n", json!({ "id": 7, "method": method, "params": params })));
        self.receive()
    }

    fn is_closed(&mut self) -> bool {
        // A reset is as closed as an end.
        self.0.read_to_end(&mut Vec::new()).map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |_| true)
    }
}

/// Polls, because a library client sees notifications only while it asks something else.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_wallet_follows_its_payment_into_a_block() {
    let served = Served::new("follow");
    let (client, script) = (served.client(), served.script());
    let txid = served.chain.fund(&served.payer.wpkh(), Amount::from_sat(100_000)).unwrap();
    let waiting = client.script_get_history(&script).unwrap();
    assert_eq!((waiting.len(), waiting[0].height, waiting[0].tx_hash), (1, 0, txid));
    assert_eq!(waiting[0].fee, Some(2 * 141));
    let balance = client.script_get_balance(&script).unwrap();
    assert_eq!((balance.confirmed, balance.unconfirmed), (0, 100_000));

    let coin = served.payer.coin(&served.chain, 50_000);
    let height = served.chain.height() as usize;
    let tx = client.transaction_get(&txid).unwrap();
    assert_eq!(tx.compute_txid(), txid);
    let header = client.block_header(height).unwrap();
    for id in [txid, coin.0.txid] {
        let proof = client.transaction_get_merkle(&id, height).unwrap();
        assert!(validate_merkle_proof(&id, &header.merkle_root, &proof));
        assert!(!validate_merkle_proof(&id, &client.block_header(height - 1).unwrap().merkle_root, &proof));
        assert_eq!(client.txid_from_pos(height, proof.pos).unwrap(), id);
    }
    assert!(client.transaction_get_merkle(&txid, height - 1).is_err());

    let spend = served.payer.spend(&[coin], 1_000);
    assert_eq!(client.transaction_broadcast(&spend).unwrap(), spend.compute_txid());
    assert_eq!(client.transaction_broadcast(&spend).unwrap(), spend.compute_txid(), "again is no error");
    let child = served.payer.spend(&owned(&spend), 1_000);
    client.transaction_broadcast(&child).unwrap();
    let heights: Vec<_> = client.script_get_history(&script).unwrap().iter().map(|line| line.height).collect();
    assert_eq!(heights, [height as i32, height as i32, 0, -1]);
    let balance = client.script_get_balance(&script).unwrap();
    assert_eq!((balance.confirmed, balance.unconfirmed), (150_000, -2_000));
    // The library sorts by height.
    let coins = client.script_list_unspent(&script).unwrap();
    assert_eq!(
        coins.iter().map(|coin| (coin.height, coin.value)).collect::<Vec<_>>(),
        [(0, 48_000), (height, 100_000)]
    );
}

#[test]
fn merkle_proofs_hold_at_every_size() {
    let served = Served::new("proofs");
    let client = served.client();
    for size in [1, 2, 3, 6] {
        for _ in 0..size {
            served.chain.fund(&served.payer.wpkh(), Amount::from_sat(10_000)).unwrap();
        }
        served.chain.mine_to_self(1);
        let height = served.chain.height();
        let block = served.chain.block(height).unwrap();
        assert_eq!(block.txdata.len(), size + 1);
        for txid in block.txdata.iter().map(Transaction::compute_txid) {
            let proof = client.transaction_get_merkle(&txid, height as usize).unwrap();
            assert!(validate_merkle_proof(&txid, &block.header.merkle_root, &proof));
        }
    }
}

#[test]
fn subscribers_hear_of_blocks_and_scripts() {
    let served = Served::new("subscribe");
    let (client, script) = (served.client(), served.script());
    assert_eq!(client.block_headers_subscribe().unwrap().height, FIRST_BLOCKS as usize);
    assert_eq!(client.script_subscribe(&script).unwrap(), None);
    let txid = served.chain.fund(&served.payer.wpkh(), Amount::from_sat(100_000)).unwrap();
    let status = wait_for(|| {
        client.ping().unwrap();
        client.script_pop(&script).unwrap()
    });
    assert_eq!(status[..], sha256::Hash::hash(format!("{txid}:0:").as_bytes())[..]);
    served.chain.mine_to_self(1);
    let tip = wait_for(|| {
        client.ping().unwrap();
        client.block_headers_pop().unwrap()
    });
    assert_eq!((tip.height as u32, tip.header), served.chain.tip());
    let confirmed = wait_for(|| {
        client.ping().unwrap();
        client.script_pop(&script).unwrap()
    });
    let expected = sha256::Hash::hash(format!("{txid}:{}:", tip.height).as_bytes());
    assert_eq!(confirmed[..], expected[..]);
    assert!(client.script_unsubscribe(&script).unwrap());
}

#[test]
fn an_emptied_history_is_told_as_null_and_a_reorg_as_a_new_tip() {
    let served = Served::new("null");
    let coin = served.payer.coin(&served.chain, 100_000);
    let other = Payer::new(2).wpkh().script_pubkey();
    let paid = served.payer.spend_to(&coin, &other, 1_000);
    served.chain.submit(&paid).unwrap();
    served.chain.mine_to_self(1);

    let mut raw = served.raw();
    let hash = ScriptHash::of(&other).to_string();
    assert!(raw.call("blockchain.scripthash.subscribe", json!([hash]))["result"].is_string());
    raw.call("blockchain.headers.subscribe", json!([]));
    served.chain.reorg_with(1, &[served.payer.spend(&[coin], 500)]).unwrap();
    let mut told = [raw.receive(), raw.receive()];
    told.sort_by_key(|note| note["method"].to_string());
    assert_eq!(told[0]["params"][0]["height"], served.chain.height());
    assert_eq!(told[1]["params"], json!([hash, null]));
}

#[test]
fn a_confirmed_parent_changes_its_waiting_childs_status() {
    let served = Served::new("child");
    let parent = served.payer.spend(&[served.payer.coin(&served.chain, 100_000)], 1_000);
    let script = Payer::new(2).wpkh().script_pubkey();
    let child = served.payer.spend_to(&owned(&parent)[0], &script, 200);
    served.chain.submit(&parent).unwrap();
    let mut raw = served.raw();
    raw.call("blockchain.scripthash.subscribe", json!([ScriptHash::of(&script).to_string()]));
    served.chain.submit(&child).unwrap();
    let mut statuses = [raw.receive()["params"][1].clone(), Value::Null];
    served.chain.mine_with(&[parent]).unwrap();
    statuses[1] = raw.receive()["params"][1].clone();
    let status = |height: i32| {
        let mut engine = sha256::Hash::engine();
        engine.input(format!("{}:{height}:", child.compute_txid()).as_bytes());
        json!(sha256::Hash::from_engine(engine).to_string())
    };
    assert_eq!(statuses, [status(-1), status(0)]);
}

#[test]
fn the_servers_own_methods_answer() {
    let served = Served::new("methods");
    let client = served.client();
    let features = client.server_features().unwrap();
    assert_eq!((features.protocol_min.as_str(), features.protocol_max.as_str()), ("1.4", "1.4"));
    assert_eq!(client.protocol_version().unwrap(), "1.4");
    assert_eq!(client.relay_fee().unwrap(), 0.000_01);
    assert_eq!(client.estimate_fee(6, None).unwrap(), 0.000_01);
    let headers = client.block_headers(FIRST_BLOCKS as usize - 1, 5_000).unwrap();
    assert_eq!((headers.count, headers.max), (2, 2016));
    assert_eq!(headers.headers[1], served.chain.tip().1);

    let mut raw = served.raw();
    assert_eq!(raw.call("mempool.get_fee_histogram", json!([]))["result"], json!([]));
    served.chain.fund(&served.payer.wpkh(), Amount::from_sat(50_000)).unwrap();
    let histogram = raw.call("mempool.get_fee_histogram", json!([]))["result"].clone();
    assert_eq!(histogram[0][1], 141);
    assert!(histogram[0][0].as_f64().is_some_and(|rate| (1.9..=2.1).contains(&rate)), "{histogram}");
    let txid = served.chain.mempool()[0];
    served.chain.mine_to_self(1);
    let verbose = raw.call("blockchain.transaction.get", json!([txid, true]))["result"].clone();
    assert_eq!((verbose["confirmations"].as_u64(), &verbose["txid"]), (Some(1), &json!(txid)));
    let proof = raw.call("blockchain.block.header", json!([3, 5]))["result"].clone();
    assert_eq!(proof["branch"].as_array().map(Vec::len), Some(3));
    for method in ["server.banner", "server.donation_address", "server.peers.subscribe", "server.ping"] {
        assert!(raw.call(method, json!([])).get("result").is_some(), "{method}");
    }
    for (asked, spoken) in
        [(json!("1.4"), true), (json!(["1.2", "1.6"]), true), (json!("1.5"), false), (json!(3), false)]
    {
        assert_eq!(raw.call("server.version", json!(["test", asked])).get("result").is_some(), spoken, "{asked}");
    }
}

#[test]
fn batches_come_as_arrays_and_as_lines() {
    let served = Served::new("batch");
    let mut raw = served.raw();
    raw.send(
        "[{\"id\":1,\"method\":\"server.ping\"},{\"method\":\"server.ping\"},{\"id\":\"x\",\"method\":\"nope\"}]\n",
    );
    let replies = raw.receive();
    assert_eq!(replies.as_array().map(Vec::len), Some(2), "no reply without an id");
    assert_eq!((&replies[0]["id"], &replies[1]["id"]), (&json!(1), &json!("x")));
    assert_eq!(replies[1]["error"]["code"], -32601);

    // 1,000 chunks of headers are far more than what may wait to be written.
    let lines: String = (0..1_000)
        .map(|id| format!("{{\"id\":{id},\"method\":\"blockchain.block.headers\",\"params\":[0,2016]}}\n"))
        .collect();
    let mut writer = raw.0.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(lines.as_bytes()));
    for id in 0..1_000 {
        assert_eq!(raw.receive()["id"], id);
    }
    writing.join().unwrap().unwrap();
}

#[test]
fn malformed_input_gets_an_error_and_the_line_stays_open() {
    let served = Served::new("malformed");
    let mut raw = served.raw();
    for (line, code) in [
        ("", -32700),
        ("{", -32700),
        ("\u{0}\u{1}", -32700),
        (&"[".repeat(1_000), -32700),
        ("3", -32600),
        ("[]", -32600),
        ("{\"id\":1}", -32600),
        ("{\"id\":1,\"method\":3}", -32600),
        ("{\"id\":1,\"method\":\"server.ping\",\"params\":{}}", -32602),
        ("{\"id\":1,\"method\":\"blockchain.block.header\",\"params\":[-1]}", -32602),
        ("{\"id\":1,\"method\":\"blockchain.block.header\",\"params\":[4000000000]}", 1),
        ("{\"id\":1,\"method\":\"blockchain.scripthash.get_history\",\"params\":[\"00\"]}", -32602),
        ("{\"id\":1,\"method\":\"blockchain.transaction.broadcast\",\"params\":[\"00\"]}", 1),
        ("{\"id\":1,\"method\":\"blockchain.transaction.id_from_pos\",\"params\":[1,9,true]}", 1),
    ] {
        raw.send(format!("{line}\n"));
        assert_eq!(raw.receive()["error"]["code"], code, "{line}");
    }
    raw.send([0xff, 0xfe, b'\n']);
    assert_eq!(raw.receive()["error"]["code"], -32700);
    assert_eq!(raw.call("server.ping", json!([]))["result"], Value::Null);
}

#[test]
fn a_refused_broadcast_says_why() {
    let served = Served::new("why");
    let coin = served.payer.coin(&served.chain, 100_000);
    let cheap = served.payer.spend(&[coin], 10);
    let refused = served.client().transaction_broadcast(&cheap).unwrap_err().to_string();
    assert!(refused.contains("min relay fee not met, 10 <"), "{refused}");
}

#[test]
fn an_endless_line_is_cut_off() {
    let served = Served::new("endless");
    let mut raw = served.raw();
    let mut writer = raw.0.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || while writer.write_all(&[b' '; 65_536]).is_ok() {});
    assert!(raw.is_closed());
    writing.join().unwrap();
    assert_eq!(served.raw().call("server.ping", json!([]))["result"], Value::Null);
}

#[test]
fn an_outage_drops_clients_until_it_is_over() {
    let served = Served::new("outage");
    let (mut before, port) = (served.raw(), served.server.local_addr());
    before.call("server.ping", json!([]));
    served.server.pause();
    assert!(before.is_closed());
    assert!(served.raw().is_closed());
    served.server.resume();
    wait_for(|| Client::new(&served.server.url()).ok()).ping().unwrap();
    served.runtime.block_on(served.server.shutdown());
    assert!(TcpStream::connect(port).is_err(), "the port is free again");
}
