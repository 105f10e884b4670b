//! The answers that depend on nothing but the chain; names and shapes are those of the Electrum protocol 1.4.

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::sha256d;
use bitcoin::hex::DisplayHex;
use bitcoin::{Transaction, Txid};
use serde_json::{Map, Value, json};

use super::merkle;
use super::rpc::{Params, RpcError};
use crate::chain::{Chain, HistoryLine, MIN_RELAY_SAT_PER_VB, ScriptHash, State, SubmitError};

/// The one protocol version spoken.
const PROTOCOL: &str = "1.4";
const SOFTWARE: &str = concat!("pedlar-devnet ", env!("CARGO_PKG_VERSION"));
/// Headers in one answer: one difficulty period, as all servers give.
const MAX_HEADERS: u32 = 2016;
/// Virtual bytes per step of the fee histogram, about a tenth of a block.
const HISTOGRAM_STEP_VB: u64 = 100_000;

/// Answers a request that is no subscription.
///
/// # Errors
/// What the client is told instead of a result.
pub(super) fn answer(chain: &Chain, method: &str, params: &Params) -> Result<Value, RpcError> {
    if method == "blockchain.transaction.broadcast" {
        return broadcast(chain, params);
    }
    chain.read(|state| match method {
        "blockchain.block.header" => block_header(state, params),
        "blockchain.block.headers" => block_headers(state, params),
        "blockchain.estimatefee" => Ok(json!(btc_per_kvb(state.estimate_fee(params.get(0)?)))),
        "blockchain.relayfee" => Ok(json!(btc_per_kvb(MIN_RELAY_SAT_PER_VB as f64))),
        "blockchain.scripthash.get_balance" => balance(state, params),
        "blockchain.scripthash.get_history" => Ok(lines(state.history(&params.parse(0)?))),
        "blockchain.scripthash.get_mempool" => Ok(lines(state.pending(&params.parse(0)?))),
        "blockchain.scripthash.listunspent" => unspent(state, params),
        "blockchain.transaction.get" => transaction(state, params),
        "blockchain.transaction.get_merkle" => transaction_merkle(state, params),
        "blockchain.transaction.id_from_pos" => id_from_pos(state, params),
        "mempool.get_fee_histogram" => Ok(json!(state.fee_histogram(HISTOGRAM_STEP_VB))),
        "server.banner" => Ok(json!("A devnet: its coins are worth nothing.")),
        "server.donation_address" => Ok(json!("")),
        "server.features" => features(state),
        "server.peers.subscribe" => Ok(json!([])),
        "server.ping" => Ok(Value::Null),
        "server.version" => version(params),
        _ => Err(RpcError::unknown_method(method)),
    })
}

/// The tip as `blockchain.headers.subscribe` gives it.
pub(super) fn tip(state: &State) -> Value {
    json!({ "height": state.ledger.height(), "hex": serialize_hex(&state.ledger.tip().header) })
}

fn broadcast(chain: &Chain, params: &Params) -> Result<Value, RpcError> {
    let hex: String = params.get(0)?;
    let tx: Transaction =
        deserialize_hex(&hex).map_err(|error| RpcError::refused(format!("TX decode failed: {error}")))?;
    match chain.submit(&tx) {
        // As Core: sending again what waits already is no error.
        Ok(txid) => Ok(json!(txid)),
        Err(SubmitError::AlreadyInMempool) => Ok(json!(tx.compute_txid())),
        Err(reason) => Err(RpcError::refused(format!("the transaction was rejected by network rules.\n\n{reason}\n"))),
    }
}

fn block_header(state: &State, params: &Params) -> Result<Value, RpcError> {
    let (height, checkpoint): (u32, u32) = (params.get(0)?, params.get_or_default(1)?);
    let block = state.ledger.block(height).ok_or_else(|| no_block(height))?;
    let hex = serialize_hex(&block.header);
    if checkpoint == 0 {
        return Ok(json!(hex));
    }
    let mut proof = header_proof(state, height, checkpoint)?;
    proof.insert("header".into(), json!(hex));
    Ok(proof.into())
}

fn block_headers(state: &State, params: &Params) -> Result<Value, RpcError> {
    let (start, count): (u32, u32) = (params.get(0)?, params.get(1)?);
    let checkpoint: u32 = params.get_or_default(2)?;
    let end = start.saturating_add(count.min(MAX_HEADERS));
    let headers: Vec<_> = (start..end).map_while(|height| state.ledger.block(height)).collect();
    let mut reply = match headers.len().checked_sub(1) {
        Some(more) if checkpoint > 0 => header_proof(state, start.saturating_add(more as u32), checkpoint)?,
        _ => Map::new(),
    };
    reply.insert("count".into(), json!(headers.len()));
    reply.insert("hex".into(), json!(headers.iter().map(|block| serialize_hex(&block.header)).collect::<String>()));
    reply.insert("max".into(), json!(MAX_HEADERS));
    Ok(reply.into())
}

/// That the header at `height` is under the root of all headers up to `checkpoint`.
fn header_proof(state: &State, height: u32, checkpoint: u32) -> Result<Map<String, Value>, RpcError> {
    if checkpoint < height || checkpoint > state.ledger.height() {
        let tip = state.ledger.height();
        return Err(RpcError::refused(format!("need {height} <= cp_height {checkpoint} <= tip {tip}")));
    }
    let hashes = (0..=checkpoint).map_while(|at| state.ledger.block(at)).map(|block| block.hash.to_raw_hash());
    let (branch, root) = merkle::branch(hashes.collect(), height as usize).ok_or_else(|| no_block(height))?;
    Ok(Map::from_iter([("branch".into(), texts(branch)), ("root".into(), json!(root.to_string()))]))
}

fn balance(state: &State, params: &Params) -> Result<Value, RpcError> {
    let (confirmed, unconfirmed) = state.balance(&params.parse(0)?);
    Ok(json!({ "confirmed": confirmed, "unconfirmed": unconfirmed }))
}

fn lines(history: Vec<HistoryLine>) -> Value {
    let line = |line: HistoryLine| match line.fee {
        Some(fee) => json!({ "tx_hash": line.txid, "height": line.height, "fee": fee.to_sat() }),
        None => json!({ "tx_hash": line.txid, "height": line.height }),
    };
    history.into_iter().map(line).collect()
}

fn unspent(state: &State, params: &Params) -> Result<Value, RpcError> {
    let script: ScriptHash = params.parse(0)?;
    let coins = state.unspent(&script).into_iter().map(|coin| {
        json!({
            "tx_hash": coin.outpoint.txid,
            "tx_pos": coin.outpoint.vout,
            "height": coin.height,
            "value": coin.value.to_sat(),
        })
    });
    Ok(coins.collect())
}

fn transaction(state: &State, params: &Params) -> Result<Value, RpcError> {
    let txid: Txid = params.parse(0)?;
    let missing = || RpcError::refused("No such mempool or blockchain transaction.");
    let (tx, height) = state.find(&txid).ok_or_else(missing)?;
    if !params.get_or_default::<bool>(1)? {
        return Ok(json!(serialize_hex(tx)));
    }
    let mut verbose = describe(tx);
    if let Some(block) = height.and_then(|height| state.ledger.block(height)) {
        let depth = state.ledger.height().saturating_sub(height.unwrap_or(0)).saturating_add(1);
        verbose.insert("blockhash".into(), json!(block.hash));
        verbose.insert("confirmations".into(), json!(depth));
        verbose.insert("time".into(), json!(block.header.time));
        verbose.insert("blocktime".into(), json!(block.header.time));
    }
    Ok(verbose.into())
}

/// The part of Core's `getrawtransaction` that the transaction alone answers.
fn describe(tx: &Transaction) -> Map<String, Value> {
    let inputs = tx.input.iter().map(|input| {
        let witness: Vec<_> = input.witness.iter().map(DisplayHex::to_lower_hex_string).collect();
        json!({
            "txid": input.previous_output.txid,
            "vout": input.previous_output.vout,
            "scriptSig": { "asm": input.script_sig.to_asm_string(), "hex": input.script_sig.to_hex_string() },
            "txinwitness": witness,
            "sequence": input.sequence.0,
        })
    });
    let outputs = tx.output.iter().enumerate().map(|(n, output)| {
        let script = &output.script_pubkey;
        json!({
            "value": output.value.to_btc(),
            "n": n,
            "scriptPubKey": { "asm": script.to_asm_string(), "hex": script.to_hex_string() },
        })
    });
    Map::from_iter([
        ("txid".into(), json!(tx.compute_txid())),
        ("hash".into(), json!(tx.compute_wtxid())),
        ("version".into(), json!(tx.version.0)),
        ("size".into(), json!(tx.total_size())),
        ("vsize".into(), json!(tx.vsize())),
        ("weight".into(), json!(tx.weight().to_wu())),
        ("locktime".into(), json!(tx.lock_time.to_consensus_u32())),
        ("vin".into(), inputs.collect()),
        ("vout".into(), outputs.collect()),
        ("hex".into(), json!(serialize_hex(tx))),
    ])
}

fn transaction_merkle(state: &State, params: &Params) -> Result<Value, RpcError> {
    let (txid, height): (Txid, u32) = (params.parse(0)?, params.get(1)?);
    let missing = || RpcError::refused(format!("no transaction {txid} in block {height}"));
    let (_, pos) = state.ledger.place(&txid).filter(|place| place.0 == height).ok_or_else(missing)?;
    Ok(json!({ "block_height": height, "pos": pos, "merkle": block_branch(state, height, pos)? }))
}

fn id_from_pos(state: &State, params: &Params) -> Result<Value, RpcError> {
    let (height, pos): (u32, u32) = (params.get(0)?, params.get(1)?);
    let missing = || RpcError::refused(format!("no transaction at position {pos} of block {height}"));
    let txid = state.ledger.txid_at(height, pos).ok_or_else(missing)?;
    if !params.get_or_default::<bool>(2)? {
        return Ok(json!(txid));
    }
    Ok(json!({ "tx_hash": txid, "merkle": block_branch(state, height, pos)? }))
}

fn block_branch(state: &State, height: u32, pos: u32) -> Result<Value, RpcError> {
    let block = state.ledger.block(height).ok_or_else(|| no_block(height))?;
    let leaves = block.txids.iter().map(|txid| txid.to_raw_hash()).collect();
    let (branch, _) = merkle::branch(leaves, pos as usize).ok_or_else(|| no_block(height))?;
    Ok(texts(branch))
}

fn features(state: &State) -> Result<Value, RpcError> {
    let genesis = state.ledger.block(0).ok_or_else(|| no_block(0))?;
    Ok(json!({
        "genesis_hash": genesis.hash,
        "hash_function": "sha256",
        "hosts": {},
        "protocol_max": PROTOCOL,
        "protocol_min": PROTOCOL,
        "pruning": null,
        "server_version": SOFTWARE,
    }))
}

/// Agrees on a version: the client names one, or the least and the greatest that it speaks.
fn version(params: &Params) -> Result<Value, RpcError> {
    let (least, most) = match params.get_or_default(1)? {
        Value::Null => return Ok(json!([SOFTWARE, PROTOCOL])),
        Value::String(only) => (only.clone(), only),
        range => serde_json::from_value(range).map_err(RpcError::invalid_params)?,
    };
    let ours = parse_version(PROTOCOL);
    if ours.is_some() && parse_version(&least) <= ours && ours <= parse_version(&most) {
        return Ok(json!([SOFTWARE, PROTOCOL]));
    }
    Err(RpcError::refused(format!("unsupported protocol version: this server speaks {PROTOCOL} only")))
}

/// `None` for what is no version, which is below every version.
fn parse_version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

fn no_block(height: u32) -> RpcError {
    RpcError::refused(format!("no block at height {height}"))
}

fn btc_per_kvb(sat_per_vb: f64) -> f64 {
    sat_per_vb * 1_000.0 / 100_000_000.0
}

fn texts(hashes: Vec<sha256d::Hash>) -> Value {
    hashes.iter().map(ToString::to_string).collect()
}
