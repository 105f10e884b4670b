//! What is looked at in the node's own records: accounts, payments, and what is for sale.

use pedlar_protocol::content::Link;
use pedlar_wallet::{FILE_NAME, LadderError, OpenError};

use super::Health;
use super::files::{quoted, shown};
use super::patient::{Journal, Patient, Rows};
use crate::store::JournalError;

/// How many findings are told one by one; the rest are counted.
const MAX_TOLD: usize = 3;

/// Whether the journal is whole and of a version that this program writes.
pub(super) fn journal(patient: &Patient) -> Vec<Health> {
    let kept =
        "stop the node, keep its home, and make a new one of your last backup: pedlar backup restore FILE --home DIR";
    vec![match &patient.journal {
        Journal::Missing => Health::well("there is none yet"),
        Journal::Unreadable(error @ JournalError::Version(LadderError::Newer { .. })) => {
            Health::ill(error.to_string(), "install a newer pedlar")
        }
        Journal::Unreadable(error @ JournalError::Copy(_)) => {
            Health::ill(error.to_string(), "make room on the disk of TMPDIR, or start the node: pedlar up")
        }
        Journal::Unreadable(error) => Health::ill(error.to_string(), kept),
        Journal::Read(Rows { damaged, unread_goods, entries, .. }) => match (damaged.first(), unread_goods) {
            (Some((number, error)), _) => {
                Health::ill(format!("{} rows are damaged, number {number} for one: {error}", damaged.len()), kept)
            }
            (None, 1..) => Health::ill(format!("{unread_goods} rows of published files are damaged"), kept),
            (None, 0) => Health::well(entries.map_or_else(
                || "the file is whole".to_owned(),
                |entries| format!("the file is whole, and each of its {entries} rows is what was written"),
            )),
        },
    }]
}

/// Whether the wallet's file is whole and of a version that this program writes.
pub(super) fn wallet(patient: &Patient) -> Vec<Health> {
    let file = patient.home.wallet().join(FILE_NAME);
    vec![match &patient.wallet {
        Ok(None) => Health::well("there is none yet"),
        Ok(Some(records)) => Health::well(format!(
            "the file is whole: {} payments to this node, {} of its own",
            records.incoming.len(),
            records.payments.len()
        )),
        Err(error @ OpenError::Version(LadderError::Newer { .. })) => {
            Health::ill(error.to_string(), "install a newer pedlar")
        }
        Err(error) => Health::ill(
            error.to_string(),
            format!(
                "stop the node, and without a backup (pedlar backup restore) have it search for its coins anew: mv {0} {0}.damaged && install -m 600 /dev/null {1} && \
                 pedlar up",
                quoted(&file),
                quoted(&patient.home.restored_mark()),
            ),
        ),
    }]
}

/// Whether the accounts are such as they can be, and the wallet knows of each payment that counts.
pub(super) fn ledger(patient: &Patient) -> Vec<Health> {
    let Some(audit) = &patient.findings else {
        let readable = matches!(&patient.journal, Journal::Read(rows) if rows.entries.is_none());
        let unknown = "whose accounts these are is not known without the passphrase";
        return match readable && patient.opened.is_none() {
            true => vec![Health::ill(unknown, "pedlar doctor --passphrase-file FILE, or start the node: pedlar up")],
            false => Vec::new(),
        };
    };
    if audit.findings.is_empty() {
        return vec![Health::well(format!("{} accounts, all in order", audit.accounts))];
    }
    let mut told: Vec<String> = audit.findings.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    let more = audit.findings.len().saturating_sub(told.len());
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    vec![Health::ill(
        told.join("; "),
        "stop trading with them (pedlar sell chunks --stop), keep a copy of the home, and report this with \
         the output of `pedlar account list`",
    )]
}

/// Whether each published file is still what was published, as far as can be seen without reading it.
pub(super) fn published(patient: &Patient) -> Vec<Health> {
    let Journal::Read(rows) = &patient.journal else { return Vec::new() };
    let refused = rows.goods.iter().filter_map(|shelved| shelved.refusal().map(|why| (shelved, why.to_string())));
    let refused: Vec<_> = refused.collect();
    let Some((first, why)) = refused.first() else {
        return vec![Health::well(format!("{} published, none changed", rows.goods.len()))];
    };
    let (link, path) = (Link::new(first.kind(), first.blob.root), shown(first.path()));
    vec![Health::ill(
        format!("{} of {} are refused to buyers, {} for one: {why}", refused.len(), rows.goods.len(), path),
        format!("sell it as it is now with `pedlar publish`, or no more: pedlar unpublish {link}"),
    )]
}
