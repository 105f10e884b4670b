//! Reading an evidence file, as somebody who trusts neither side.

use std::io::{self, BufRead, Read};

use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::hex::FromHex;
use bitcoin::{Address, Transaction};
use pedlar_net::PeerId;
use pedlar_protocol::account::OutPoint;
use pedlar_protocol::evidence::{Evidence, EvidenceError, Sale};
use pedlar_protocol::id::TopUpId;
use pedlar_protocol::wire::OpenError;

use super::{Record, VERSION};

/// The longest line: a transaction as large as a block, in hex, does not fit, one as large as nodes relay does.
const MAX_LINE: u64 = 1 << 20;

/// The most lines: what fits no memory of a small machine is no account of two nodes.
const MAX_RECORDS: usize = 100_000;

/// What one line has proven.
#[derive(Debug)]
pub(crate) enum Checked {
    /// What the file says of itself, unproven.
    Heading { node: String, peer: String },
    /// Bytes that the buyer signed for.
    Sale(Box<Sale>),
    /// The seller's word for an advance.
    TopUp { seller: PeerId, buyer: PeerId, address: String },
    /// A transaction that pays it.
    Payment { seller: PeerId, buyer: PeerId, txid: String, vout: u32, sat: u64, height: u64 },
    /// A gift.
    Grant { seller: PeerId, buyer: PeerId, msat: u64 },
    /// What the file owns up to not proving.
    Unproven { what: String, msat: u64 },
}

/// Why a file is none, or proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It can't be read.
    #[error("the file can't be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is no file of evidence")]
    NoEvidence,
    /// A newer program wrote it.
    #[error("the file is of version {0}, this program reads {VERSION}")]
    Newer(u32),
    /// Longer than any.
    #[error("the file has more than {MAX_RECORDS} lines")]
    TooLong,
    /// A line that does not prove what it says.
    #[error("line {line}: {fault}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Not a record.
    #[error("it is no record of this format, or longer than a mebibyte")]
    NoRecord,
    /// Bytes that are not in hex.
    #[error("its bytes are not in hex")]
    NoHex,
    /// No signature at all.
    #[error(transparent)]
    Signature(OpenError),
    /// A paper that proves nothing.
    #[error(transparent)]
    Paper(#[from] EvidenceError),
    /// No peer id.
    #[error("it names no node")]
    NoNode,
    /// No transaction.
    #[error("its transaction can't be decoded")]
    NoTransaction,
    /// No such output, or it pays somebody else.
    #[error("output {vout} of transaction {txid} does not pay the address that the seller gave, {address}")]
    OtherAddress {
        /// The transaction.
        txid: String,
        /// The output.
        vout: u32,
        /// Where it should pay to.
        address: String,
    },
}

/// Reads a file to its end, and tells `seen` what each line proves.
///
/// # Errors
/// [`FileError`] at the first line that is not right, or what `seen` says.
pub(crate) fn check<E: From<FileError>>(
    file: &mut impl BufRead,
    mut seen: impl FnMut(Checked) -> Result<(), E>,
) -> Result<Evidence, E> {
    let mut evidence = Evidence::default();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let len = file.by_ref().take(MAX_LINE).read_line(&mut text).map_err(|error| unreadable(line, error))?;
        if len == 0 && line > 1 {
            break;
        }
        if line > MAX_RECORDS {
            return Err(FileError::TooLong.into());
        }
        let record = serde_json::from_str::<Record>(&text).ok().filter(|_| text.ends_with('\n'));
        let record = match (line, record) {
            (1, Some(record @ Record::Evidence { version: VERSION, .. })) => record,
            (1, Some(Record::Evidence { version, .. })) => return Err(FileError::Newer(version).into()),
            (1, _) => return Err(FileError::NoEvidence.into()),
            (_, Some(record)) => record,
            (_, None) => return Err(FileError::Line { line, fault: Fault::NoRecord }.into()),
        };
        seen(take(&mut evidence, record).map_err(|fault| FileError::Line { line, fault })?)?;
    }
    Ok(evidence)
}

/// What is no text at all is no evidence, or a damaged line of it.
fn unreadable(line: usize, error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::InvalidData if line == 1 => FileError::NoEvidence,
        io::ErrorKind::InvalidData => FileError::Line { line, fault: Fault::NoRecord },
        _ => FileError::Read(error),
    }
}

fn take(evidence: &mut Evidence, record: Record) -> Result<Checked, Fault> {
    Ok(match record {
        Record::Evidence { node, peer, .. } => Checked::Heading { node, peer },
        Record::Sale { quote, receipt } => {
            let receipt = receipt.map(|receipt| receipt.read()).transpose()?;
            Checked::Sale(Box::new(evidence.take_sale(quote.read()?, receipt)?))
        }
        Record::Topup { topup } => {
            let word = evidence.take_topup(topup.read()?)?;
            let says = word.topup();
            Checked::TopUp { seller: says.seller, buyer: says.buyer, address: says.address.clone() }
        }
        Record::Payment { topup, transaction, vout, height } => {
            take_payment(evidence, &topup, &transaction, vout, height)?
        }
        Record::Grant { grant, seller, buyer } => {
            let node = |text: &str| text.parse::<PeerId>().map_err(|_| Fault::NoNode);
            let (seller, buyer) = (node(&seller)?, node(&buyer)?);
            let msat = evidence.take_grant(grant.read()?, seller, buyer)?.msat();
            Checked::Grant { seller, buyer, msat }
        }
        Record::Unproven { what, msat } => Checked::Unproven { what, msat },
    })
}

fn take_payment(
    evidence: &mut Evidence,
    topup: &str,
    transaction: &str,
    vout: u32,
    height: u64,
) -> Result<Checked, Fault> {
    let id = TopUpId(<[u8; 32]>::from_hex(topup).map_err(|_| Fault::NoHex)?);
    let word = evidence.topup(&id).ok_or(EvidenceError::NoTopUp(id))?.topup().clone();
    let transaction: Transaction = deserialize_hex(transaction).map_err(|_| Fault::NoTransaction)?;
    let txid = transaction.compute_txid();
    let other = || Fault::OtherAddress { txid: txid.to_string(), vout, address: word.address.clone() };
    let address: Address<NetworkUnchecked> = word.address.parse().map_err(|_| other())?;
    let output = usize::try_from(vout).ok().and_then(|vout| transaction.output.get(vout));
    let output = output.filter(|output| output.script_pubkey == address.assume_checked_ref().script_pubkey());
    let sat = output.ok_or_else(other)?.value.to_sat();
    evidence.take_payment(&id, OutPoint { txid: txid.to_byte_array(), vout }, sat)?;
    Ok(Checked::Payment { seller: word.seller, buyer: word.buyer, txid: txid.to_string(), vout, sat, height })
}
