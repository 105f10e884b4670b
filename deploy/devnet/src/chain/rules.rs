//! What makes a transaction acceptable: consensus (also inside a block) and relay policy (the mempool only).
//!
//! Every refusal begins with the words that Bitcoin Core uses for it, so that a wallet which knows those words, and a
//! person who looks them up, finds the same meaning here. Script policy beyond consensus (low S, clean stack …) is not
//! checked: libbitcoinconsensus offers consensus flags only.

use std::collections::{HashMap, HashSet};

use bitcoin::consensus::serialize;
use bitcoin::locktime::absolute::LockTime;
use bitcoin::relative;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxOut, Txid, Weight};

/// Depth a coinbase output needs before the next block may spend it, in blocks (consensus).
pub const COINBASE_MATURITY: u32 = 100;
/// Weight of a block's transactions: 4,000,000 (BIP141) less what Core keeps free for header and coinbase.
pub(super) const MAX_TXS_WEIGHT: u64 = 4_000_000 - 8_000;
/// Signature operations of a whole block (BIP141).
pub(super) const MAX_BLOCK_SIGOPS: usize = 80_000;
/// Fee floor, in sat/vB. Core 31 went down to 0.1; 1 is what all nodes in use still relay.
pub const MIN_RELAY_SAT_PER_VB: u64 = 1;
/// What a replacement adds per own vbyte, in sat/vB (BIP125 rule 4).
pub(super) const INCREMENTAL_SAT_PER_VB: u64 = 1;
/// Signature operations of one relayed transaction: a fifth of a block, as in Core.
const MAX_TX_SIGOPS: usize = MAX_BLOCK_SIGOPS / 5;
/// Weight of one relayed transaction, as in Core.
const MAX_TX_WEIGHT: Weight = Weight::from_wu(400_000);
/// Bytes without witness: 64 could be taken for an inner node of a merkle tree (CVE-2017-12842).
const MIN_TX_BASE_SIZE: usize = 65;
/// Bytes of a standard scriptSig: a 15-of-15 multisig redeem script with its signatures, as in Core.
const MAX_SCRIPT_SIG_SIZE: usize = 1650;
/// Versions that are relayed; 3 is TRUC (BIP431), whose extra topology rules are not enforced here.
const STANDARD_VERSIONS: std::ops::RangeInclusive<i32> = 1..=3;

/// Which rule a transaction broke, in the words of Bitcoin Core; amounts in sat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No inputs.
    #[error("bad-txns-vin-empty")]
    NoInputs,
    /// No outputs.
    #[error("bad-txns-vout-empty")]
    NoOutputs,
    /// One output is above 21 million bitcoin.
    #[error("bad-txns-vout-toolarge")]
    OutputTooLarge,
    /// All outputs together are above 21 million bitcoin.
    #[error("bad-txns-txouttotal-toolarge")]
    OutputsTooLarge,
    /// The same coin is spent twice inside the transaction.
    #[error("bad-txns-inputs-duplicate")]
    DuplicateInput,
    /// An input without a coin, as only a coinbase has it.
    #[error("bad-txns-prevout-null")]
    NullInput,
    /// A coinbase outside of its block.
    #[error("coinbase")]
    Coinbase,
    /// A coin that does not exist, or not any more.
    #[error("bad-txns-inputs-missingorspent, {0}")]
    MissingInput(OutPoint),
    /// A coinbase output younger than [`COINBASE_MATURITY`].
    #[error("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth {0}")]
    PrematureCoinbase(u32),
    /// Outputs are worth more than inputs.
    #[error("bad-txns-in-belowout, value in ({value_in}) < value out ({value_out})")]
    InBelowOut {
        /// Sum of the spent coins.
        value_in: Amount,
        /// Sum of the outputs.
        value_out: Amount,
    },
    /// `nLockTime` lies beyond the next block.
    #[error("non-final")]
    NonFinal,
    /// A relative lock (BIP68) lies beyond the next block.
    #[error("non-BIP68-final")]
    NonBip68Final,
    /// Too many signature operations.
    #[error("bad-txns-too-many-sigops, {0}")]
    TooManySigops(usize),
    /// The script of this input refuses it.
    #[error("mempool-script-verify-flag-failed, input {0}")]
    Script(usize),
    /// The chosen transactions do not fit into one block.
    #[error("bad-blk-length")]
    BlockTooLarge,
    /// Version outside of 1 to 3.
    #[error("version")]
    Version,
    /// Heavier than 400,000 weight units.
    #[error("tx-size")]
    TooHeavy,
    /// Smaller than 65 bytes without witness.
    #[error("tx-size-small")]
    TooSmall,
    /// A scriptSig of more than 1650 bytes.
    #[error("scriptsig-size")]
    ScriptSigSize,
    /// A scriptSig that does more than push data.
    #[error("scriptsig-not-pushonly")]
    ScriptSigNotPushOnly,
    /// An output script of no standard form.
    #[error("scriptpubkey")]
    ScriptPubkey,
    /// An output that costs more to spend than it is worth.
    #[error("dust, output {output} is below {least}")]
    Dust {
        /// Its index.
        output: usize,
        /// The least amount for its script.
        least: Amount,
    },
    /// Fee below [`MIN_RELAY_SAT_PER_VB`].
    #[error("min relay fee not met, {} < {}", fee.to_sat(), least.to_sat())]
    MinRelayFee {
        /// What it pays.
        fee: Amount,
        /// What its size asks for.
        least: Amount,
    },
    /// This very transaction waits already.
    #[error("txn-already-in-mempool")]
    AlreadyInMempool,
    /// This very transaction is in a block.
    #[error("txn-already-known")]
    AlreadyConfirmed,
    /// A replacement whose fee rate is not above that of each direct conflict.
    #[error("replacement-failed, insufficient feerate; {} < {}", fee.to_sat(), least.to_sat())]
    InsufficientRate {
        /// What it pays.
        fee: Amount,
        /// What the better rate would take at its size.
        least: Amount,
    },
    /// A replacement that pays less than all it evicts and its own relay.
    #[error("insufficient fee, rejecting replacement; {} < {}", fee.to_sat(), least.to_sat())]
    InsufficientFee {
        /// What it pays.
        fee: Amount,
        /// What replacing would take.
        least: Amount,
    },
    /// A replacement that would evict more than 100 transactions.
    #[error("too many potential replacements, {0} > 100")]
    TooManyReplacements(usize),
    /// A replacement that spends an output of what it replaces.
    #[error("bad-txns-spends-conflicting-tx, {0}")]
    SpendsConflicting(Txid),
    /// Too many unconfirmed transactions hang together.
    #[error("too-large-cluster")]
    TooLargeCluster,
    /// No room.
    #[error("mempool full")]
    MempoolFull,
}

/// An output that can be spent.
#[derive(Clone, Debug)]
pub(crate) struct Coin {
    pub(crate) output: TxOut,
    /// Of its block; for an unconfirmed coin the next block's.
    pub(crate) height: u32,
    pub(crate) coinbase: bool,
}

/// The block a transaction would be in, and the coins it would find there.
pub(super) trait Context {
    /// Of that block.
    fn height(&self) -> u32;
    /// Median time past of the block at `height`, in seconds since the epoch (BIP113).
    fn median_time(&self, height: u32) -> u32;
    /// The coin as this block may spend it.
    fn coin(&self, outpoint: &OutPoint) -> Option<Coin>;
}

/// What a transaction that passed [`check_inputs`] spends and costs.
pub(super) struct Checked {
    /// The coins' outputs, in the order of the inputs.
    pub(super) spent: Vec<TxOut>,
    pub(super) fee: Amount,
    pub(super) sigops: usize,
}

/// The rules that need nothing but the transaction (Core's `CheckTransaction`).
pub(super) fn check_form(tx: &Transaction) -> Result<(), SubmitError> {
    if tx.input.is_empty() {
        return Err(SubmitError::NoInputs);
    }
    if tx.output.is_empty() {
        return Err(SubmitError::NoOutputs);
    }
    if tx.output.iter().any(|output| output.value > Amount::MAX_MONEY) {
        return Err(SubmitError::OutputTooLarge);
    }
    if total(&tx.output).is_none_or(|sum| sum > Amount::MAX_MONEY) {
        return Err(SubmitError::OutputsTooLarge);
    }
    if tx.is_coinbase() {
        return Err(SubmitError::Coinbase);
    }
    if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(SubmitError::NullInput);
    }
    let mut seen = HashSet::with_capacity(tx.input.len());
    if !tx.input.iter().all(|input| seen.insert(input.previous_output)) {
        return Err(SubmitError::DuplicateInput);
    }
    Ok(())
}

/// The policy that needs nothing but the transaction (Core's `IsStandardTx`).
pub(super) fn check_standard(tx: &Transaction) -> Result<(), SubmitError> {
    if !STANDARD_VERSIONS.contains(&tx.version.0) {
        return Err(SubmitError::Version);
    }
    if tx.weight() > MAX_TX_WEIGHT {
        return Err(SubmitError::TooHeavy);
    }
    if tx.base_size() < MIN_TX_BASE_SIZE {
        return Err(SubmitError::TooSmall);
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG_SIZE {
            return Err(SubmitError::ScriptSigSize);
        }
        if !input.script_sig.is_push_only() {
            return Err(SubmitError::ScriptSigNotPushOnly);
        }
    }
    for (index, output) in tx.output.iter().enumerate() {
        let script = &output.script_pubkey;
        let standard = script.is_witness_program()
            || script.is_p2pkh()
            || script.is_p2sh()
            || script.is_op_return()
            || script.is_p2pk()
            || script.is_multisig();
        if !standard {
            return Err(SubmitError::ScriptPubkey);
        }
        let least = script.minimal_non_dust();
        if output.value < least {
            return Err(SubmitError::Dust { output: index, least });
        }
    }
    Ok(())
}

/// The consensus rules of the coins spent: they exist, are mature, unlocked, and worth the outputs.
pub(super) fn check_inputs(tx: &Transaction, context: &impl Context) -> Result<Checked, SubmitError> {
    if !is_final(tx, context) {
        return Err(SubmitError::NonFinal);
    }
    let mut spent = Vec::with_capacity(tx.input.len());
    for input in &tx.input {
        let outpoint = input.previous_output;
        let coin = context.coin(&outpoint).ok_or(SubmitError::MissingInput(outpoint))?;
        let depth = context.height().saturating_sub(coin.height);
        if coin.coinbase && depth < COINBASE_MATURITY {
            return Err(SubmitError::PrematureCoinbase(depth));
        }
        if tx.version.0 >= 2 && !is_unlocked(input.sequence, coin.height, context) {
            return Err(SubmitError::NonBip68Final);
        }
        spent.push(coin.output);
    }
    // Coins are worth at most the 21 million that were mined, so neither sum overflows.
    let value_in = total(&spent).unwrap_or(Amount::ZERO);
    let value_out = total(&tx.output).ok_or(SubmitError::OutputsTooLarge)?;
    let fee = value_in.checked_sub(value_out).ok_or(SubmitError::InBelowOut { value_in, value_out })?;
    let sigops = count_sigops(tx, &spent);
    Ok(Checked { spent, fee, sigops })
}

/// The policy on what is spent: signature operations and the fee floor.
pub(super) fn check_fee(tx: &Transaction, checked: &Checked) -> Result<(), SubmitError> {
    if checked.sigops > MAX_TX_SIGOPS {
        return Err(SubmitError::TooManySigops(checked.sigops));
    }
    let least = Amount::from_sat(MIN_RELAY_SAT_PER_VB.saturating_mul(tx.weight().to_vbytes_ceil()));
    if checked.fee < least {
        return Err(SubmitError::MinRelayFee { fee: checked.fee, least });
    }
    Ok(())
}

/// Runs the script of every input, taproot included; `spent` in the order of the inputs.
pub(super) fn check_scripts(tx: &Transaction, spent: &[TxOut]) -> Result<(), SubmitError> {
    let bytes = serialize(tx);
    let utxos: Vec<_> = spent.iter().map(utxo).collect();
    for (index, output) in spent.iter().enumerate() {
        let script = output.script_pubkey.as_bytes();
        bitcoinconsensus::verify(script, output.value.to_sat(), &bytes, Some(&utxos), index)
            .map_err(|_| SubmitError::Script(index))?;
    }
    Ok(())
}

/// The C view of an output; it points into `output`, which must outlive it.
fn utxo(output: &TxOut) -> bitcoinconsensus::Utxo {
    let script = output.script_pubkey.as_bytes();
    bitcoinconsensus::Utxo {
        script_pubkey: script.as_ptr(),
        script_pubkey_len: script.len() as u32,
        value: output.value.to_sat() as i64,
    }
}

/// `None` when the sum leaves 64 bits.
fn total(outputs: &[TxOut]) -> Option<Amount> {
    outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value))
}

/// Signature operation cost as BIP141 counts it.
fn count_sigops(tx: &Transaction, spent: &[TxOut]) -> usize {
    let coins: HashMap<_, _> = tx.input.iter().map(|input| input.previous_output).zip(spent).collect();
    tx.total_sigop_cost(|outpoint| coins.get(outpoint).map(|&output| output.clone()))
}

/// Whether `nLockTime` lets it into the block (BIP113: time is the median past).
fn is_final(tx: &Transaction, context: &impl Context) -> bool {
    if !tx.is_lock_time_enabled() {
        return true;
    }
    match tx.lock_time {
        LockTime::Blocks(height) => height.to_consensus_u32() < context.height(),
        LockTime::Seconds(time) => time.to_consensus_u32() < context.median_time(context.height().saturating_sub(1)),
    }
}

/// Whether the relative lock of an input on a coin of `coin_height` is over (BIP68).
fn is_unlocked(sequence: Sequence, coin_height: u32, context: &impl Context) -> bool {
    match sequence.to_relative_lock_time() {
        None => true,
        Some(relative::LockTime::Blocks(blocks)) => {
            coin_height.saturating_add(u32::from(blocks.value())) <= context.height()
        }
        Some(relative::LockTime::Time(time)) => {
            // The clock starts at the median of the block before the coin's.
            let start = context.median_time(coin_height.saturating_sub(1));
            let seconds = u32::from(time.value()).saturating_mul(512);
            start.saturating_add(seconds) <= context.median_time(context.height().saturating_sub(1))
        }
    }
}
