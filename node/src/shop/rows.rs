//! What is for sale, as rows of the journal's file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use pedlar_protocol::content::{Root, Size, Whole};
use pedlar_protocol::money::Price;
use pedlar_protocol::text::Name;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::shelf::{Folder, Shelved};
use crate::blobs::{Fingerprint, PublishedBlob, safe_name};

/// The setting that holds the default price.
const PRICE_SETTING: &str = "chunks.price_msat_per_gib";

/// The setting that stands while the owner has stopped selling.
const CLOSED_SETTING: &str = "chunks.closed";

/// The setting that holds what is sent to all buyers together.
const LIMIT_SETTING: &str = "chunks.limit_bytes_per_s";

/// Stores a published object, with the files of a folder, in place of what was stored under its root.
pub(super) fn store(db: &mut Connection, shelved: &Shelved) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    remove(&tx, &shelved.blob.root)?;
    let blob = &shelved.blob;
    tx.execute(
        "INSERT INTO goods (root, size, path, name, outboard, inode, modified_s, modified_ns, price_msat_per_gib)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            blob.root.as_bytes(),
            blob.size.bytes().cast_signed(),
            blob.path.as_os_str().as_bytes(),
            shelved.name.as_str(),
            blob.outboard.as_os_str().as_bytes(),
            blob.fingerprint.inode.cast_signed(),
            blob.fingerprint.modified_s,
            blob.fingerprint.modified_ns,
            shelved.price.map(|price| price.msat_per_gib().cast_signed()),
        ],
    )?;
    if let Some(folder) = &shelved.folder {
        store_folder(&tx, &blob.root, folder)?;
    }
    tx.commit()
}

/// Forgets a published object.
pub(super) fn forget(db: &mut Connection, root: &Root) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    remove(&tx, root)?;
    tx.commit()
}

/// Removes all rows of a published object.
fn remove(db: &Connection, root: &Root) -> rusqlite::Result<()> {
    for table in [
        "DELETE FROM goods WHERE root = ?1",
        "DELETE FROM folders WHERE root = ?1",
        "DELETE FROM files WHERE folder = ?1",
    ] {
        db.execute(table, [root.as_bytes()])?;
    }
    Ok(())
}

fn store_folder(db: &Connection, root: &Root, folder: &Folder) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO folders (root, path, size, whole_bytes, whole_objects) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            root.as_bytes(),
            folder.path.as_os_str().as_bytes(),
            folder.size.bytes().cast_signed(),
            folder.whole.bytes.cast_signed(),
            folder.whole.objects.cast_signed(),
        ],
    )?;
    let mut put = db.prepare(
        "INSERT INTO files (folder, root, size, path, outboard, inode, modified_s, modified_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for blob in folder.files.values() {
        put.execute(params![
            root.as_bytes(),
            blob.root.as_bytes(),
            blob.size.bytes().cast_signed(),
            blob.path.as_os_str().as_bytes(),
            blob.outboard.as_os_str().as_bytes(),
            blob.fingerprint.inode.cast_signed(),
            blob.fingerprint.modified_s,
            blob.fingerprint.modified_ns,
        ])?;
    }
    Ok(())
}

/// The rows that can be read; one that can't is left out, and said so.
pub(crate) fn load(db: &Connection) -> rusqlite::Result<Vec<Shelved>> {
    let mut folders = load_folders(db)?;
    let mut query = db.prepare(
        "SELECT root, size, path, outboard, inode, modified_s, modified_ns, name, price_msat_per_gib FROM goods",
    )?;
    let rows = query.query_map([], |row| {
        let name = Name::new(row.get::<_, String>(7)?).ok();
        let price = row.get::<_, Option<i64>>(8)?.map(|price| Price::per_gib(price.cast_unsigned()));
        let Some((blob, name)) = read_blob(row)?.zip(name) else { return Ok(None) };
        let blob = PublishedBlob { name: name.as_str().to_owned(), ..blob };
        Ok(Some(Shelved { folder: folders.remove(&blob.root).map(Arc::new), blob, name, price }))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    if rows.iter().any(Option::is_none) {
        tracing::error!("a published file's row is damaged and left out");
    }
    Ok(rows.into_iter().flatten().collect())
}

fn load_folders(db: &Connection) -> rusqlite::Result<BTreeMap<Root, Folder>> {
    let mut query = db.prepare("SELECT root, path, size, whole_bytes, whole_objects FROM folders")?;
    let rows = query.query_map([], |row| {
        let whole =
            Whole { bytes: row.get::<_, i64>(3)?.cast_unsigned(), objects: row.get::<_, i64>(4)?.cast_unsigned() };
        let path = PathBuf::from(OsString::from_vec(row.get(1)?));
        let size = Size::new(row.get::<_, i64>(2)?.cast_unsigned());
        let folder = size.map(|size| Folder { path, size, whole, files: BTreeMap::new() });
        Ok(root_at(row, 0)?.zip(folder))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut folders: BTreeMap<_, _> = rows.into_iter().flatten().collect();
    let mut query =
        db.prepare("SELECT root, size, path, outboard, inode, modified_s, modified_ns, folder FROM files")?;
    let files = query.query_map([], |row| Ok(root_at(row, 7)?.zip(read_blob(row)?)))?;
    for file in files {
        if let Some((root, blob)) = file?
            && let Some(folder) = folders.get_mut(&root)
        {
            folder.files.insert(blob.root, blob);
        }
    }
    Ok(folders)
}

/// The first seven columns, called as its file is; nothing where the root or the size is none.
fn read_blob(row: &Row<'_>) -> rusqlite::Result<Option<PublishedBlob>> {
    let Some(root) = root_at(row, 0)? else { return Ok(None) };
    let path = PathBuf::from(OsString::from_vec(row.get(2)?));
    let fingerprint =
        Fingerprint { inode: row.get::<_, i64>(4)?.cast_unsigned(), modified_s: row.get(5)?, modified_ns: row.get(6)? };
    let outboard = PathBuf::from(OsString::from_vec(row.get(3)?));
    let name = path.file_name().and_then(|name| safe_name(&name.to_string_lossy()));
    let size = Size::new(row.get::<_, i64>(1)?.cast_unsigned());
    Ok(size.map(|size| PublishedBlob {
        root,
        size,
        path,
        name: name.unwrap_or_else(|| root.to_string()),
        outboard,
        fingerprint,
    }))
}

fn root_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Root>> {
    Ok(<[u8; 32]>::try_from(row.get::<_, Vec<u8>>(column)?).ok().map(Root::from))
}

/// Stores the default price, and whether the owner has stopped selling.
pub(super) fn store_terms(db: &mut Connection, price: Option<Price>, closed: bool) -> rusqlite::Result<()> {
    let tx = db.transaction()?;
    let price = price.map(|price| price.msat_per_gib().to_string());
    let closed = closed.then(|| "true".to_owned());
    for (name, value) in [(PRICE_SETTING, price), (CLOSED_SETTING, closed)] {
        match value {
            Some(value) => {
                tx.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)", params![name, value])?
            }
            None => tx.execute("DELETE FROM settings WHERE name = ?1", [name])?,
        };
    }
    tx.commit()
}

/// Stores how many bytes a second are sent to all buyers together; 0 is no limit.
pub(super) fn store_limit(db: &mut Connection, bytes_per_s: u64) -> rusqlite::Result<()> {
    let value = bytes_per_s.to_string();
    db.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)", [LIMIT_SETTING, &value]).map(drop)
}

/// How many bytes a second are sent to all buyers together; 0 is no limit.
pub(super) fn load_limit(db: &Connection) -> rusqlite::Result<u64> {
    Ok(setting(db, LIMIT_SETTING)?.and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// The default price, and whether the owner has stopped selling.
pub(super) fn load_terms(db: &Connection) -> rusqlite::Result<(Option<Price>, bool)> {
    let price = setting(db, PRICE_SETTING)?.and_then(|value| value.parse().ok()).map(Price::per_gib);
    Ok((price, setting(db, CLOSED_SETTING)?.is_some()))
}

fn setting(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0)).optional()
}
