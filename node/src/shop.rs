//! What this node sells, on disk: published files, their prices, and the offers that say so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pedlar_net::{MAX_MESSAGE, NetHandle, PublishError as GossipError};
use pedlar_protocol::content::{Root, Size};
use pedlar_protocol::market::Goods;
use pedlar_protocol::money::Price;
use pedlar_protocol::text::Name;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::task::spawn_blocking;

use crate::blobs::{self, BlobReader, Fingerprint, PublishError, PublishedBlob};
use crate::driver::{Driver, now};
use crate::store::StoreError;

/// How soon an offer that nobody heard is published again.
const NOBODY_HEARD: Duration = Duration::from_secs(2);

/// How long no offer is made while the journal can't be written: nobody is served then.
const UNWRITABLE: Duration = Duration::from_secs(2);

/// How long the loop sleeps while nothing is for sale; selling wakes it.
const IDLE: Duration = Duration::from_secs(3600);

/// The setting that holds the default price.
const PRICE_SETTING: &str = "chunks.price_msat_per_gib";

/// The setting that stands while the owner has stopped selling.
const CLOSED_SETTING: &str = "chunks.closed";

/// A published file with its own price, where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Shelved {
    pub(crate) blob: PublishedBlob,
    pub(crate) name: Name,
    pub(crate) price: Option<Price>,
}

/// The published files, for those who deliver them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    goods: RwLock<BTreeMap<Root, Shelved>>,
}

impl Shelf {
    /// The file under this root.
    pub(crate) fn blob(&self, root: &Root) -> Option<PublishedBlob> {
        self.read().get(root).map(|shelved| shelved.blob.clone())
    }

    /// Everything on the shelf.
    pub(crate) fn all(&self) -> Vec<Shelved> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Root, Shelved>> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        self.goods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Root, Shelved>> {
        self.goods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to publish, and how.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) path: PathBuf,
    pub(crate) name: Option<Name>,
    pub(crate) price: Option<Price>,
    pub(crate) copy: bool,
}

/// Why something is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishFailure {
    /// The file.
    #[error(transparent)]
    File(#[from] PublishError),
    /// Neither the file nor the shop has a price.
    #[error("no price: give one with --price, or set the shop's with `pedlar sell chunks --price P`")]
    NoPrice,
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that reads the file ended.
    #[error("publishing was interrupted")]
    Interrupted,
}

/// Publishes, unpublishes and prices; and keeps the network told.
pub(crate) struct Shopkeeper {
    driver: Arc<Driver>,
    net: NetHandle,
    shelf: Arc<Shelf>,
    outboards: PathBuf,
    copies: PathBuf,
    changed: tokio::sync::Notify,
}

impl Shopkeeper {
    /// Opens the shop with what the journal remembers.
    ///
    /// # Errors
    /// [`StoreError`] when the journal can't be read.
    pub(crate) async fn open(
        driver: Arc<Driver>,
        net: NetHandle,
        shelf: Arc<Shelf>,
        outboards: PathBuf,
        copies: PathBuf,
    ) -> Result<Self, StoreError> {
        let (goods, (price, closed)) = driver.store().ask(|db| Ok((load(db)?, load_terms(db)?))).await?;
        driver
            .commit(|market| {
                market.handle_price(now(), price, closed);
                for shelved in &goods {
                    market.handle_published(now(), shelved.blob.root, goods_of(shelved));
                }
            })
            .await?;
        *shelf.write() = goods.into_iter().map(|shelved| (shelved.blob.root, shelved)).collect();
        Ok(Self { driver, net, shelf, outboards, copies, changed: tokio::sync::Notify::new() })
    }

    /// The shelf.
    pub(crate) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Hashes a file, remembers it, and puts it up for sale; `progress` hears the bytes hashed so far and may stop it.
    ///
    /// # Errors
    /// [`PublishFailure`]; nothing is for sale then that was not before.
    pub(crate) async fn publish(
        &self,
        publication: Publication,
        progress: impl FnMut(u64) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Shelved, PublishFailure> {
        let Publication { path, name, price, copy } = publication;
        let default = self.driver.read(|market| market.shop().price());
        if price.or(default).is_none() {
            return Err(PublishFailure::NoPrice);
        }
        let (outboards, copies) = (self.outboards.clone(), self.copies.clone());
        let hashing = spawn_blocking(move || match copy {
            true => blobs::publish_copy(&path, &copies, &outboards, progress),
            false => blobs::publish(&path, &outboards, progress),
        });
        let blob = hashing.await.map_err(|_| PublishFailure::Interrupted)??;
        // A name that is safe as a file's is within the bounds of an offer's, but for its length in bytes.
        let named = name.or_else(|| Name::new(blob.name.clone()).ok());
        let name = named.or_else(|| Name::new(blob.root.to_string()).ok()).ok_or(PublishFailure::Interrupted)?;
        let shelved = Shelved { blob, name, price };
        self.shelve(shelved.clone()).await?;
        if self.driver.read(|market| market.shop().is_closed()) {
            self.sell(default).await?;
        }
        Ok(shelved)
    }

    /// Puts up for sale what was hashed; durable, then told.
    async fn shelve(&self, shelved: Shelved) -> Result<(), StoreError> {
        let row = shelved.clone();
        self.driver.store().ask(move |db| store(db, &row)).await?;
        let root = shelved.blob.root;
        let goods = goods_of(&shelved);
        self.shelf.write().insert(root, shelved);
        self.driver.commit(|market| market.handle_published(now(), root, goods)).await?;
        self.announce(&root).await;
        self.changed.notify_one();
        Ok(())
    }

    /// Takes an object out of the shop; whether it was there. The file is left alone.
    ///
    /// # Errors
    /// [`StoreError`]; it is for sale still.
    pub(crate) async fn unpublish(&self, root: Root) -> Result<bool, StoreError> {
        let key = *root.as_bytes();
        self.driver.store().ask(move |db| db.execute("DELETE FROM goods WHERE root = ?1", [key])).await?;
        let shelved = self.shelf.write().remove(&root);
        self.driver.commit(|market| market.handle_unpublished(now(), &root)).await?;
        self.net.unprovide(key).await;
        if let Some(shelved) = &shelved {
            // Its tree is of no use to anybody now; and one that can't be removed is only disk space.
            let _ = std::fs::remove_file(&shelved.blob.outboard);
        }
        self.changed.notify_one();
        Ok(shelved.is_some())
    }

    /// Sells chunks, at this price where they have none of their own.
    ///
    /// # Errors
    /// [`StoreError`]; the shop is as before.
    pub(crate) async fn sell(&self, price: Option<Price>) -> Result<(), StoreError> {
        self.set_terms(price, false).await?;
        for shelved in self.shelf.all() {
            self.announce(&shelved.blob.root).await;
        }
        Ok(())
    }

    /// Stops selling; what is published stays, for when selling goes on.
    ///
    /// # Errors
    /// [`StoreError`]; the shop is as before.
    pub(crate) async fn stop(&self) -> Result<(), StoreError> {
        let price = self.driver.read(|market| market.shop().price());
        self.set_terms(price, true).await?;
        for shelved in self.shelf.all() {
            self.net.unprovide(*shelved.blob.root.as_bytes()).await;
        }
        Ok(())
    }

    async fn set_terms(&self, price: Option<Price>, closed: bool) -> Result<(), StoreError> {
        self.driver.store().ask(move |db| store_terms(db, price, closed)).await?;
        self.driver.commit(|market| market.handle_price(now(), price, closed)).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Whether a published file is still what was published, as far as can be seen without reading it.
    pub(crate) fn check(blob: &PublishedBlob) -> Result<(), blobs::ReadError> {
        BlobReader::open(blob).map(drop)
    }

    /// Provides what is for sale and publishes offers when they are due, until the node stops.
    pub(crate) async fn run(&self) {
        if !self.driver.read(|market| market.shop().is_closed()) {
            for shelved in self.shelf.all() {
                self.announce(&shelved.blob.root).await;
            }
        }
        loop {
            let pause = self.offer().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
                () = self.driver.stopping() => return,
            }
        }
    }

    async fn announce(&self, root: &Root) {
        if let Err(error) = self.net.provide(*root.as_bytes()).await {
            tracing::warn!(%root, %error, "an object is not announced");
        }
    }

    /// Publishes the offer if it is due; how long until there is something to do.
    async fn offer(&self) -> Duration {
        if self.driver.store().trouble().is_some() {
            return UNWRITABLE;
        }
        let addresses = self.net.listen_addrs();
        let random = getrandom::u64().unwrap_or_default();
        let offer = self.driver.commit(|market| market.poll_offer(now(), &addresses, random)).await;
        match offer {
            Ok(Ok(Some(offer))) if offer.bytes().len() <= MAX_MESSAGE => self.gossip(offer.bytes().to_vec()).await,
            Ok(Ok(Some(_))) => tracing::error!("our offer is too long to be published"),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::error!(%error, "no offer can be made"),
            Err(error) => tracing::error!(%error, "no offer is made"),
        }
        let due = self.driver.read(|market| market.offer_due(now()));
        due.map_or(IDLE, |due| due.since(now()).max(Duration::from_millis(100)))
    }

    /// Publishes, again and again while nobody is connected: an offer that nobody heard was not made.
    async fn gossip(&self, bytes: Vec<u8>) {
        loop {
            match self.net.publish(bytes.clone()).await {
                Ok(()) => return,
                Err(GossipError::NoPeers) => tokio::select! {
                    () = tokio::time::sleep(NOBODY_HEARD) => {}
                    () = self.changed.notified() => {
                        self.changed.notify_one();
                        return;
                    }
                    () = self.driver.stopping() => return,
                },
                Err(error) => return tracing::warn!(%error, "our offer was not published"),
            }
        }
    }
}

fn goods_of(shelved: &Shelved) -> Goods {
    Goods { name: shelved.name.clone(), size: shelved.blob.size, price: shelved.price }
}

fn store(db: &Connection, shelved: &Shelved) -> rusqlite::Result<()> {
    let blob = &shelved.blob;
    db.execute(
        "INSERT OR REPLACE INTO goods (root, size, path, name, outboard, inode, modified_s, modified_ns, price_msat_per_gib)
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
    Ok(())
}

/// The rows that can be read; one that can't is left out, and said so.
fn load(db: &Connection) -> rusqlite::Result<Vec<Shelved>> {
    let mut query = db.prepare(
        "SELECT root, size, path, name, outboard, inode, modified_s, modified_ns, price_msat_per_gib FROM goods",
    )?;
    let rows = query.query_map([], read_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Option<Shelved>> {
    let (root, size, name): ([u8; 32], i64, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
    let (Some(size), Ok(name)) = (Size::new(size.cast_unsigned()), Name::new(name)) else {
        tracing::error!("a published file's row is damaged and left out");
        return Ok(None);
    };
    let fingerprint =
        Fingerprint { inode: row.get::<_, i64>(5)?.cast_unsigned(), modified_s: row.get(6)?, modified_ns: row.get(7)? };
    let blob = PublishedBlob {
        root: Root::from(root),
        size,
        path: PathBuf::from(OsString::from_vec(row.get(2)?)),
        name: name.as_str().to_owned(),
        outboard: PathBuf::from(OsString::from_vec(row.get(4)?)),
        fingerprint,
    };
    let price = row.get::<_, Option<i64>>(8)?.map(|price| Price::per_gib(price.cast_unsigned()));
    Ok(Some(Shelved { blob, name, price }))
}

fn store_terms(db: &mut Connection, price: Option<Price>, closed: bool) -> rusqlite::Result<()> {
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

fn load_terms(db: &Connection) -> rusqlite::Result<(Option<Price>, bool)> {
    let setting = |name: &str| -> rusqlite::Result<Option<String>> {
        db.query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0)).optional()
    };
    let price = setting(PRICE_SETTING)?.and_then(|value| value.parse().ok()).map(Price::per_gib);
    Ok((price, setting(CLOSED_SETTING)?.is_some()))
}
