//! Blocks: how one is built, and what is kept of it once it is in the chain.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, WitnessCommitment, WitnessMerkleNode, absolute, transaction,
};

use super::rules::Coin;

/// Difficulty of regtest: every second hash is good enough.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Blocks between two halvings of the subsidy on regtest.
const HALVING_INTERVAL: u32 = 150;
/// Version bits (BIP9) with no deployment signalled.
const BLOCK_VERSION: i32 = 0x2000_0000;
/// The value that a coinbase's witness adds to the commitment (BIP141); its meaning is reserved.
const WITNESS_RESERVED: [u8; 32] = [0; 32];
/// Output script of the witness commitment: OP_RETURN, 36 bytes, the mark of BIP141.
const COMMITMENT_MARK: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// A block in the chain, with what it takes to look into it and to take it off again.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) header: Header,
    pub(crate) hash: BlockHash,
    pub(crate) txids: Vec<Txid>,
    pub(crate) txs: Vec<Transaction>,
    /// The coins its inputs spent, in their order; the coinbase has none.
    pub(super) spent: Vec<Coin>,
}

/// What a new block is made of, beside its place in the chain.
pub(super) struct Template<'a> {
    pub(super) height: u32,
    pub(super) previous: BlockHash,
    /// Seconds since the epoch.
    pub(super) time: u32,
    /// Who gets subsidy and fees.
    pub(super) to: ScriptBuf,
    pub(super) fees: Amount,
    /// Told apart in the coinbase: two chains, and two blocks of one chain at the same height.
    pub(super) mark: &'a [u8],
    pub(super) txs: Vec<Transaction>,
}

/// The block that every regtest chain starts with.
pub(super) fn genesis() -> Stored {
    let Block { header, txdata } = bitcoin::constants::genesis_block(Network::Regtest);
    Stored::new(header, txdata, Vec::new())
}

/// Builds the block and finds its proof of work, two tries on average.
///
/// Returns header and transactions, the coinbase first.
pub(super) fn build(template: Template<'_>) -> (Header, Vec<Transaction>) {
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(BLOCK_VERSION),
            prev_blockhash: template.previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: template.time,
            bits: CompactTarget::from_consensus(REGTEST_BITS),
            nonce: 0,
        },
        txdata: Vec::with_capacity(template.txs.len().saturating_add(1)),
    };
    let mut coinbase = coinbase(&template);
    block.txdata.push(coinbase.clone());
    block.txdata.extend(template.txs);
    // Both roots are `None` for a block without transactions only, and this one has its coinbase.
    let witness_root = block.witness_root().unwrap_or(WitnessMerkleNode::all_zeros());
    coinbase.output.push(commitment(&witness_root));
    if let Some(first) = block.txdata.first_mut() {
        *first = coinbase;
    }
    block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
    let target = block.header.target();
    while !target.is_met_by(block.header.block_hash()) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    (block.header, block.txdata)
}

/// New coins of the block at `height`.
fn subsidy(height: u32) -> Amount {
    let halvings = height / HALVING_INTERVAL;
    Amount::from_sat(Amount::from_int_btc(50).to_sat().checked_shr(halvings).unwrap_or(0))
}

/// The coinbase, its witness commitment still missing.
fn coinbase(template: &Template<'_>) -> Transaction {
    let mark = bitcoin::hashes::sha256::Hash::hash(template.mark).to_byte_array();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            // BIP34: the height comes first, so that no two coinbases share an id.
            script_sig: Builder::new().push_int(i64::from(template.height)).push_slice(mark).into_script(),
            sequence: Sequence::MAX,
            witness: vec![WITNESS_RESERVED.as_slice()].into(),
        }],
        output: vec![TxOut { value: subsidy(template.height) + template.fees, script_pubkey: template.to.clone() }],
    }
}

fn commitment(witness_root: &WitnessMerkleNode) -> TxOut {
    let hash: WitnessCommitment = Block::compute_witness_commitment(witness_root, &WITNESS_RESERVED);
    let script = [COMMITMENT_MARK.as_slice(), hash.as_byte_array()].concat();
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }
}

impl Stored {
    pub(super) fn new(header: Header, txs: Vec<Transaction>, spent: Vec<Coin>) -> Self {
        let txids = txs.iter().map(Transaction::compute_txid).collect();
        Self { header, hash: header.block_hash(), txids, txs, spent }
    }

    /// Position of the spending transaction, and what it spends.
    pub(super) fn spends(&self) -> impl Iterator<Item = (u32, OutPoint, &Coin)> {
        let inputs = (0..).zip(&self.txs).skip(1).flat_map(|(pos, tx)| tx.input.iter().map(move |input| (pos, input)));
        inputs.zip(&self.spent).map(|((pos, input), coin)| (pos, input.previous_output, coin))
    }

    /// Position of the creating transaction, and what it creates; outputs that nobody can spend are left out.
    pub(super) fn creates(&self) -> impl Iterator<Item = (u32, OutPoint, &TxOut)> {
        let txs = (0..).zip(self.txids.iter().zip(&self.txs));
        txs.flat_map(|(pos, (txid, tx))| outputs(*txid, tx).map(move |(outpoint, output)| (pos, outpoint, output)))
    }
}

/// The outputs of a transaction that can become coins, with their names.
pub(super) fn outputs(txid: Txid, tx: &Transaction) -> impl Iterator<Item = (OutPoint, &TxOut)> {
    let all = (0..).zip(&tx.output).map(move |(vout, output)| (OutPoint { txid, vout }, output));
    all.filter(|(_, output)| !output.script_pubkey.is_op_return())
}
