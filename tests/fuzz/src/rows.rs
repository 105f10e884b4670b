//! Rows of a node's two databases, damaged: one value is another one of the same kind.

use std::fs;
use std::path::{Path, PathBuf};

use pedlar_node::fuzzing;
use pedlar_protocol::wire::peer_id;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::electrum::{self, Snapshot, Stage};
use crate::files::folder;
use crate::signer::key;

/// Tables and columns of the wallet.
const WALLET: [(&str, &str); 34] = [
    ("pedlar_wallet", "block_1"),
    ("pedlar_wallet", "receive_index"),
    ("pedlar_wallet", "restoring"),
    ("pedlar_addresses", "payee"),
    ("pedlar_addresses", "address_index"),
    ("pedlar_addresses", "expires_ms"),
    ("pedlar_payments", "address"),
    ("pedlar_payments", "sat"),
    ("pedlar_payments", "created_ms"),
    ("pedlar_payments", "state"),
    ("pedlar_payments", "height"),
    ("pedlar_payments", "depth"),
    ("pedlar_payments", "rival"),
    ("pedlar_payments", "version"),
    ("pedlar_transactions", "raw"),
    ("pedlar_versions", "vout"),
    ("pedlar_versions", "fee_sat"),
    ("pedlar_incoming", "sat"),
    ("pedlar_incoming", "state"),
    ("pedlar_incoming", "hash"),
    ("pedlar_channels", "role"),
    ("pedlar_channels", "key_index"),
    ("pedlar_channels", "change_index"),
    ("pedlar_channels", "buyer_pk"),
    ("pedlar_channels", "capacity_sat"),
    ("pedlar_channels", "expiry_height"),
    ("pedlar_channels", "change_spk"),
    ("pedlar_channels", "payment"),
    ("pedlar_channels", "signed_sat"),
    ("pedlar_ends", "raw"),
    ("pedlar_ends", "kind"),
    ("pedlar_ends", "fee_sat"),
    ("pedlar_ends", "state"),
    ("pedlar_ended", "sig"),
];

/// Tables and columns of the journal.
const JOURNAL: [(&str, &str); 14] = [
    ("entries", "body"),
    ("goods", "root"),
    ("goods", "size"),
    ("goods", "path"),
    ("goods", "name"),
    ("goods", "outboard"),
    ("goods", "inode"),
    ("goods", "price_msat_per_gib"),
    ("folders", "root"),
    ("folders", "size"),
    ("folders", "whole_objects"),
    ("files", "folder"),
    ("files", "root"),
    ("files", "size"),
];

/// A wallet of which rows are damaged: it opens and answers, or says what is wrong.
pub fn wallet_rows(data: &[u8]) {
    let dir = folder().path().join("damaged");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a folder");
    let file = dir.join("wallet.sqlite");
    fs::write(&file, Stage::get().wallet()).expect("a wallet");
    damage(&file, &WALLET, data);
    if let Ok(mut wallet) = electrum::try_open(&dir) {
        let _ = Snapshot::try_of(&mut wallet);
        while let Ok(Some(_)) = wallet.poll_event() {}
    }
}

/// A journal of which rows are damaged: what can be read is there, or the journal says what is wrong. Goods beside a
/// damaged one stay for sale.
pub fn journal_rows(data: &[u8]) {
    let file = folder().path().join("journal.sqlite");
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(PathBuf::from(format!("{}{ending}", file.display())));
    }
    let me = peer_id(key(0));
    let (entries, _) = fuzzing::journal(&file, &me).expect("a new journal");
    assert!(entries.is_empty());
    let db = Connection::open(&file).expect("it is there");
    // No value is in two rows: a damage hits one.
    for n in 1..=2_u8 {
        let row = (n, [n; 32], format!("film-{n}"));
        let insert = |sql| db.execute(sql, row.clone()).expect("a row");
        insert("INSERT INTO goods VALUES (?2, 1000 + ?1, CAST(?3 AS BLOB), ?3, CAST(?3 AS BLOB), ?1, 2, 3, ?1)");
        insert("INSERT INTO folders VALUES (?2, CAST(?3 AS BLOB), 1000 + ?1, 1000, ?1)");
        insert("INSERT INTO files VALUES (?2, ?2, 1000 + ?1, CAST(?3 AS BLOB), CAST(?3 AS BLOB), ?1, 2, 3)");
    }
    drop(db);
    damage(&file, &JOURNAL, data);
    if let Ok((_, roots)) = fuzzing::journal(&file, &me) {
        assert!(roots.len() <= 2);
        let goods = data.first().is_some_and(|which| JOURNAL[usize::from(*which) % JOURNAL.len()].0 == "goods");
        assert!(!goods || data.len() != DAMAGE || roots.contains(&[2; 32].into()), "the one beside it is gone");
    }
}

/// Bytes of one damage that has a number.
const DAMAGE: usize = 3;

/// Each damage is a column, a kind of value and what it takes; only the first row of a table is hit.
fn damage(file: &Path, columns: &[(&str, &str)], data: &[u8]) {
    let db = Connection::open(file).expect("a database");
    let mut data = data;
    while let Some((&[which, kind, value], rest)) = data.split_first_chunk::<DAMAGE>() {
        data = rest;
        let (table, column) = columns[usize::from(which) % columns.len()];
        let number = [i64::MIN, -1, 0, 1, i64::MAX, u32::MAX.into(), 1 << 51, value.into()][usize::from(kind) % 8];
        let len = usize::from(value).min(data.len());
        let bytes = &data[..len];
        let now = format!("SELECT {column} FROM {table} LIMIT 1");
        let Ok(now) = db.query_row(&now, [], |row| row.get::<_, Value>(0)) else { continue };
        let damaged = match now {
            // Cut, grown, or one bit of it.
            Value::Blob(mut blob) => {
                match kind % 4 {
                    0 => blob.truncate(usize::from(value)),
                    1 => blob.extend(bytes),
                    2 => blob = bytes.to_vec(),
                    _ => blob.iter_mut().skip(usize::from(value)).take(1).for_each(|byte| *byte ^= 1 << (kind >> 5)),
                }
                Value::Blob(blob)
            }
            Value::Text(_) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            Value::Integer(_) | Value::Real(_) => Value::Integer(number),
            Value::Null if kind & 1 == 0 => Value::Integer(number),
            Value::Null => Value::Blob(bytes.to_vec()),
        };
        // A strict table refuses what is of the wrong kind, as it would have when the row was written.
        let first =
            format!("UPDATE {table} SET {column} = ?1 WHERE {column} IS (SELECT {column} FROM {table} LIMIT 1)");
        let _ = db.execute(&first, [damaged]);
    }
}
