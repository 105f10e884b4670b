//! A seller and a buyer with money at it, as processes; what one of them sells, and buying it.

use std::path::PathBuf;

use pedlar_tests::cluster::{Peer, World, path, text};

use crate::PROGRAM;
use crate::measure::{Process, Run, quiet_disk};

/// What paid bytes cost: dear enough that a receipt for a window is never for nothing.
pub(crate) const PRICE: &str = "100sat/GiB";

/// What the buyer leaves with the seller: hundreds of GiB.
const ADVANCE: &str = "50000sat";

/// One seller and one buyer, connected, with an advance that counts.
pub(crate) struct Market {
    pub(crate) world: World,
    pub(crate) seller: Peer,
    pub(crate) buyer: Peer,
}

/// A published file.
pub(crate) struct Good {
    pub(crate) file: PathBuf,
    pub(crate) len: u64,
    /// With the seller's addresses, as `publish` prints it.
    pub(crate) link: String,
}

impl Market {
    pub(crate) async fn open() -> Self {
        Self::of(PROGRAM).await
    }

    /// A market whose nodes run this program.
    pub(crate) async fn of(program: &str) -> Self {
        let world = World::new(program).await;
        let seller = world.node("seller").await;
        let sample = world.file("sample", 1 << 20);
        seller.publish(&sample, PRICE).await;
        let buyer = world.node("buyer").await;
        world.fund(&buyer).await;
        buyer.pay(&seller, ADVANCE).await;
        Self { world, seller, buyer }
    }

    pub(crate) async fn publish(&self, name: &str, len: u64, price: &str) -> Good {
        let file = self.world.file(name, len);
        let published = self.seller.home.one(&["publish", path(&file), "--price", price], "published").await;
        let link = text(&published.expect("a file can be published")["link"]).to_owned();
        Good { file, len, link }
    }

    /// Both nodes.
    pub(crate) fn processes(&self) -> [Process; 2] {
        [Process(self.seller.pid()), Process(self.buyer.pid())]
    }

    /// Buys a good with the verb that users type, from its start to its end.
    pub(crate) async fn buy(&self, good: &Good) -> Run {
        let dest = self.destination();
        quiet_disk().await;
        let verb = ["get", &good.link, "-o", path(&dest)];
        let (run, bought) = Run::of(good.len, &self.processes(), self.buyer.home.ask(&verb)).await;
        bought.expect("the purchase succeeds");
        remove(&dest, good.len);
        run
    }

    /// Where every download goes, whoever makes it.
    pub(crate) fn destination(&self) -> PathBuf {
        self.world.path("download")
    }
}

/// Removes a download that is complete.
pub(crate) fn remove(download: &std::path::Path, len: u64) {
    let found = std::fs::metadata(download).map(|file| file.len());
    assert_eq!(found.ok(), Some(len), "{} is complete", download.display());
    std::fs::remove_file(download).expect("a download can be removed");
}
