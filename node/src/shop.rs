//! What this node sells, on disk: published files and folders, their prices, and the offers that say so.

mod pace;
mod rows;
mod shelf;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pedlar_net::{MAX_MESSAGE, NetHandle, PublishError as GossipError};
use pedlar_protocol::content::Root;
use pedlar_protocol::money::Price;
use pedlar_protocol::session::Request;
use pedlar_protocol::text::Name;
use rusqlite::Connection;
use tokio::task::spawn_blocking;

use crate::blobs::{self, PublishError, PublishedBlob, Skipped};
use crate::driver::{Driver, now};
use crate::store::StoreError;

pub(crate) use rows::load;
pub(crate) use shelf::{Shelf, Shelved};

use shelf::Folder;

/// How soon an offer that nobody heard is published again.
const NOBODY_HEARD: Duration = Duration::from_secs(2);

/// How long no offer is made while the journal can't be written: nobody is served then.
const UNWRITABLE: Duration = Duration::from_secs(2);

/// How long the loop sleeps while nothing is for sale; selling wakes it.
const IDLE: Duration = Duration::from_secs(3600);

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
        let stored = driver.store().ask(|db| Ok((load(db)?, rows::load_terms(db)?, rows::load_limit(db)?)));
        let (goods, (price, closed), limit) = stored.await?;
        driver
            .commit(|market| {
                market.handle_price(now(), price, closed);
                market.handle_capacity(now(), limit);
                for shelved in &goods {
                    market.handle_published(now(), shelved.blob.root, shelved.goods());
                }
            })
            .await?;
        shelf.fill(goods);
        shelf.pace.set(limit);
        Ok(Self { driver, net, shelf, outboards, copies, changed: tokio::sync::Notify::new() })
    }

    /// The shelf.
    pub(crate) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Hashes a file or a folder, remembers it, and puts it up for sale; `progress` hears the bytes hashed so far and those
    /// there are, and may stop it. Beside it, what is no part of the folder.
    ///
    /// # Errors
    /// [`PublishFailure`]; nothing is for sale then that was not before.
    pub(crate) async fn publish(
        &self,
        publication: Publication,
        progress: impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(Shelved, Vec<Skipped>), PublishFailure> {
        let Publication { path, name, price, copy } = publication;
        let default = self.driver.read(|market| market.shop().price());
        if price.or(default).is_none() {
            return Err(PublishFailure::NoPrice);
        }
        let (outboards, copies) = (self.outboards.clone(), self.copies.clone());
        let hashing = spawn_blocking(move || hash(&path, copy, &copies, &outboards, progress));
        let Hashed { blob, folder, skipped } = hashing.await.map_err(|_| PublishFailure::Interrupted)??;
        // A name that is safe as a file's is within the bounds of an offer's, but for its length in bytes.
        let named = name.or_else(|| Name::new(blob.name.clone()).ok());
        let name = named.or_else(|| Name::new(blob.root.to_string()).ok()).ok_or(PublishFailure::Interrupted)?;
        let shelved = Shelved { blob, name, price, folder: folder.map(Arc::new) };
        self.shelve(shelved.clone()).await?;
        if self.driver.read(|market| market.shop().is_closed()) {
            self.sell(default).await?;
        }
        Ok((shelved, skipped))
    }

    /// Puts up for sale what was bought, where the node sells chunks at a price for all of them; whether it did.
    ///
    /// # Errors
    /// [`StoreError`]; it is not for sale.
    pub(crate) async fn resell(&self, blob: PublishedBlob) -> Result<bool, StoreError> {
        let sells = self.driver.read(|market| !market.shop().is_closed() && market.shop().price().is_some());
        // What its owner has published stays as it was.
        if !sells || self.shelf.blob(&Request::Chunks(blob.root)).is_some() {
            return Ok(false);
        }
        let name = Name::new(blob.name.clone()).ok().or_else(|| Name::new(blob.root.to_string()).ok());
        let Some(name) = name else { return Ok(false) };
        self.shelve(Shelved { blob, name, price: None, folder: None }).await?;
        Ok(true)
    }

    /// Puts up for sale what was hashed; durable, then told.
    async fn shelve(&self, shelved: Shelved) -> Result<(), StoreError> {
        let row = shelved.clone();
        self.driver.store().ask(move |db| rows::store(db, &row)).await?;
        let root = shelved.blob.root;
        let goods = shelved.goods();
        self.shelf.put(shelved);
        self.driver.commit(|market| market.handle_published(now(), root, goods)).await?;
        self.announce(&root).await;
        self.changed.notify_one();
        Ok(())
    }

    /// Takes a file or a folder out of the shop; whether it was there. What its owner has of it is left alone.
    ///
    /// # Errors
    /// [`StoreError`]; it is for sale still.
    pub(crate) async fn unpublish(&self, root: Root) -> Result<bool, StoreError> {
        let key = *root.as_bytes();
        self.driver.store().ask(move |db| rows::forget(db, &root)).await?;
        let shelved = self.shelf.take(&root);
        self.driver.commit(|market| market.handle_unpublished(now(), &root)).await?;
        self.net.unprovide(key).await;
        self.changed.notify_one();
        let was_there = shelved.is_some();
        if let Some(shelved) = shelved {
            let (shelf, copies) = (Arc::clone(&self.shelf), self.copies.clone());
            let tidied = spawn_blocking(move || tidy(&shelved, &shelf, &copies)).await;
            tidied.unwrap_or_else(|error| tracing::warn!(%error, "files of what is sold no more are left"));
        }
        Ok(was_there)
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

    /// Sends so many bytes a second to all buyers together, and says so in offers; 0 is no limit.
    ///
    /// # Errors
    /// [`StoreError`]; the limit is as before.
    pub(crate) async fn limit(&self, bytes_per_s: u64) -> Result<(), StoreError> {
        self.driver.store().ask(move |db| rows::store_limit(db, bytes_per_s)).await?;
        self.shelf.pace.set(bytes_per_s);
        self.driver.commit(|market| market.handle_capacity(now(), bytes_per_s)).await?;
        self.changed.notify_one();
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
        self.driver.store().ask(move |db| rows::store_terms(db, price, closed)).await?;
        self.driver.commit(|market| market.handle_price(now(), price, closed)).await?;
        self.changed.notify_one();
        Ok(())
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

/// What a journal says is published, and how many of its rows can't be read.
///
/// # Errors
/// When SQLite can't read them.
pub(crate) fn shelved(db: &Connection) -> rusqlite::Result<(Vec<Shelved>, usize)> {
    let goods = rows::load(db)?;
    let rows: usize = db.query_row("SELECT count(*) FROM goods", [], |row| row.get(0))?;
    let unread = rows.saturating_sub(goods.len());
    Ok((goods, unread))
}

/// What is hashed and not for sale yet.
struct Hashed {
    blob: PublishedBlob,
    folder: Option<Folder>,
    skipped: Vec<Skipped>,
}

fn hash(
    path: &Path,
    copy: bool,
    copies: &Path,
    outboards: &Path,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Hashed, PublishError> {
    if path.is_dir() {
        let mut folder = blobs::publish_folder(path, copy, copies, outboards, progress)?;
        let (blob, skipped) = (folder.manifest.clone(), std::mem::take(&mut folder.skipped));
        return Ok(Hashed { blob, folder: Some(folder.into()), skipped });
    }
    let total = std::fs::metadata(path).map_or(0, |file| file.len());
    let progress = |bytes| progress(bytes, total);
    let blob = match copy {
        true => blobs::publish_copy(path, copies, outboards, progress),
        false => blobs::publish(path, outboards, progress),
    }?;
    Ok(Hashed { blob, folder: None, skipped: Vec::new() })
}

/// Removes what we made for something that is sold no more, where nothing else needs it: hash trees, copies, manifests.
fn tidy(sold_no_more: &Shelved, shelf: &Shelf, copies: &Path) {
    let left = shelf.all();
    let needed: BTreeSet<&Path> =
        left.iter().flat_map(Shelved::blobs).flat_map(|blob| [blob.outboard.as_path(), &blob.path]).collect();
    let is_ours = |path: &Path| copies.canonicalize().is_ok_and(|copies| path.starts_with(copies));
    for blob in sold_no_more.blobs() {
        let copy = Some(blob.path.as_path()).filter(|path| is_ours(path));
        for path in [Some(blob.outboard.as_path()), copy].into_iter().flatten() {
            if !needed.contains(path) {
                // What can't be removed is only disk space.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
