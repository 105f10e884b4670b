//! The purchase that shows that all of it works: published, found, paid in advance, downloaded, verified, booked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use pedlar_node::money::{Msat, Price};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::market::{Market, until};
use crate::node::Node;
use crate::screen::Screen;

/// The least that the buyer pays in advance, in sat: some is left for the next purchase.
const ADVANCE_SAT: u64 = 5_000;

/// A charge is rounded up to a msat under each quote: this is enough for those of a thousand interruptions.
const ROUNDING_SAT: u64 = 1;

/// What the buyer has beside the advance, in sat, for the fee of its payment.
const FEES_SAT: u64 = 50_000;

/// Bytes of the sample: four of the largest windows.
const SAMPLE_LEN: u64 = 64 << 20;

/// A download is told of after each part of so many.
const PARTS: u64 = 10;

/// Publishes, finds, pays, downloads, verifies, and holds both books side by side; the summary of `get`, with the books.
///
/// # Errors
/// What does not go as it should.
pub async fn demonstrate(market: &Market, file: &Path, screen: Screen) -> Result<Value> {
    let dest = free_place(&market.plan.dir);
    let link = market.publish(file).await?;
    let sellers: Vec<_> = market.sellers().iter().map(|seller| seller.home.name.as_str()).collect();
    screen.say(format_args!("published {} at {}: {link}", file.display(), sellers.join(", ")));
    // Without the addresses in it, the buyer has to find the sellers by itself.
    let link = link.split('?').next().unwrap_or(&link).to_owned();
    for offer in market.offers().await? {
        screen.say(format_args!("{} asks {}", market.name(&offer["peer"]), price(&offer["price_msat_per_gib"])));
    }
    let advance_sat = advance_sat(market.dearest(&link, &dest).await?);
    market.fund_buyer(advance_sat.saturating_add(FEES_SAT), screen).await?;
    let mut part = 0;
    let mut summary = market
        .purchase(&link, &dest, advance_sat, |line| {
            if let Some(text) = sentence(market, line, &mut part) {
                screen.say(text);
            }
        })
        .await?;
    let (bought, original) = (hash(&dest).await?, hash(file).await?);
    ensure!(bought == original, "bought {bought}, published {original}");
    screen.say(format_args!("verified: {} has the BLAKE3 hash {bought}, as published", dest.display()));
    let mut books = Vec::new();
    for seller in summary["sellers"].as_array().cloned().unwrap_or_default() {
        let seller = market.nodes.iter().find(|node| seller["peer"] == node.peer_id.as_str());
        let seller = seller.context("bought from a stranger")?;
        let (sold, bought) = market.books(seller).await?;
        screen.say(format_args!("the books of {}: {}", seller.home.name, tab(&sold)));
        screen.say(format_args!("the books of the buyer: {}; they agree to the msat", tab(&bought)));
        books.push(json!({ "peer": seller.peer_id, "sold": sold, "bought": bought }));
    }
    ensure!(!books.is_empty(), "nothing was bought from anybody");
    summary["books"] = json!(books);
    summary["blake3"] = json!(bought);
    Ok(summary)
}

/// Makes the sample: bytes that no compression makes smaller, the same in each market.
///
/// # Errors
/// When it can't be written.
pub fn sample(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("sample.bin");
    let mut file = File::create(&path).context("making the sample")?;
    let bytes = blake3::Hasher::new().update(b"pedlar sample").finalize_xof();
    std::io::copy(&mut bytes.take(SAMPLE_LEN), &mut file).context("writing the sample")?;
    Ok(path)
}

impl Market {
    /// Publishes a file at each seller, the first the cheapest; its link.
    ///
    /// # Errors
    /// What a seller says.
    pub async fn publish(&self, file: &Path) -> Result<String> {
        let (path, first_sat) = (file.to_string_lossy(), self.plan.price_sat);
        let mut link = None;
        for (place, seller) in (0_u64..).zip(self.sellers()) {
            let price = format!("{}sat/GiB", first_sat + place * first_sat / 10);
            let published = seller.home.one(&["publish", &path, "--price", &price], "published").await?;
            link = published["link"].as_str().map(str::to_owned);
        }
        link.context("a market without a seller")
    }

    /// Waits until the buyer knows an offer of each seller.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn offers(&self) -> Result<Vec<Value>> {
        let buyer = self.buyer()?;
        let all = self.sellers().len();
        until("the offers to arrive", async || {
            let mut offers = buyer.home.ask(&["market", "chunks"]).await?;
            offers.retain(|line| line["type"] == "offer");
            Ok((offers.len() >= all).then_some(offers))
        })
        .await
    }

    /// What the link costs at the dearest seller that has it: an advance of this much does at whichever is asked.
    ///
    /// # Errors
    /// What `get` says.
    pub async fn dearest(&self, link: &str, dest: &Path) -> Result<Msat> {
        let lines = self.buyer()?.home.ask(&["get", link, "-o", &dest.to_string_lossy(), "--dry-run"]).await?;
        let costs = lines.iter().filter(|line| line["type"] == "quote").filter_map(|line| line["cost_msat"].as_u64());
        costs.max().map(Msat::new).context("nobody quotes")
    }

    /// Buys the link as a stranger: paid in advance, downloaded, verified; the summary of `get`.
    ///
    /// # Errors
    /// What `get` says.
    pub async fn purchase(
        &self,
        link: &str,
        dest: &Path,
        advance_sat: u64,
        mut hear: impl FnMut(&Value),
    ) -> Result<Value> {
        let (dest, advance) = (dest.to_string_lossy(), format!("{advance_sat}sat"));
        let mut summary = Value::Null;
        let verb = ["get", link, "-o", &dest, "--prepay", &advance, "--yes"];
        self.buyer()?
            .home
            .follow(&verb, |line| {
                hear(&line);
                summary = line;
            })
            .await?;
        ensure!(summary["type"] == "summary", "the purchase ended without a summary");
        Ok(summary)
    }

    /// Holds the books of a seller and the buyer side by side, until they agree or the time is over.
    ///
    /// # Errors
    /// When they do not agree, with both.
    pub async fn books(&self, seller: &Node) -> Result<(Value, Value)> {
        let buyer = self.buyer()?;
        let mut last = (Value::Null, Value::Null);
        let agreed = until("the books to agree", async || {
            let sold = seller.home.one(&["account", "show", &buyer.peer_id], "account").await?["sold"].clone();
            let bought = buyer.home.one(&["account", "show", &seller.peer_id], "account").await?["bought"].clone();
            let agree = ["paid_msat", "spent_msat"].iter().all(|field| sold[field] == bought[field]);
            last = (sold, bought);
            Ok(agree.then(|| last.clone()))
        })
        .await;
        agreed.with_context(|| {
            format!("the books differ: {} sells {}, the buyer has {}", seller.home.name, last.0, last.1)
        })
    }

    /// What the node with this id is called here.
    fn name<'a>(&'a self, peer_id: &'a Value) -> &'a str {
        let peer_id = peer_id.as_str().unwrap_or("somebody");
        self.nodes.iter().find(|node| node.peer_id == peer_id).map_or(peer_id, |node| &node.home.name)
    }
}

/// What the buyer is to leave with a seller that asks for `cost`, in sat.
fn advance_sat(cost: Msat) -> u64 {
    cost.ceil_sat().saturating_add(ROUNDING_SAT).max(ADVANCE_SAT)
}

/// The first of `bought`, `bought-2` … that no market before this one has put here.
fn free_place(dir: &Path) -> PathBuf {
    let first = dir.join("bought");
    let places = (2_u64..).map(|number| dir.join(format!("bought-{number}")));
    std::iter::once(first.clone()).chain(places).find(|place| place.symlink_metadata().is_err()).unwrap_or(first)
}

/// What a line of `get` says, for people; of its progress only each of [`PARTS`] steps, of which `part` were told of.
fn sentence(market: &Market, line: &Value, part: &mut u64) -> Option<String> {
    let number = |field: &str| line[field].as_u64().unwrap_or_default();
    let text = |field: &str| line[field].as_str().unwrap_or_default();
    let seller = || market.name(&line["peer"]);
    Some(match line["type"].as_str()? {
        "quote" => format!("{} quotes {} for what is missing", seller(), msat(&line["cost_msat"])),
        "payment" => {
            let (sat, fee, to, txid) = (number("amount_sat"), number("fee_sat"), text("address"), text("txid"));
            format!("the buyer pays {sat} sat in advance (fee {fee} sat) to {to} with {txid}; waiting for a block")
        }
        "pay" => format!("the buyer has too little: pay {} sat to {}", number("amount_sat"), text("uri")),
        "credited" => format!("the advance counts: {} paid in all", msat(&line["paid_msat"])),
        "progress" => {
            let (bytes, total) = (number("bytes"), number("total"));
            let now = bytes.saturating_mul(PARTS).checked_div(total)?;
            if now <= std::mem::replace(part, now.max(*part)) {
                return None;
            }
            format!("{:.1} of {:.1} MiB are here and verified", mib(bytes), mib(total))
        }
        "failed" => format!("{} failed: {}", seller(), text("reason")),
        "summary" => {
            let (cost, fees) = (msat(&line["paid_msat"]), number("fees_sat"));
            let seconds = line["seconds"].as_f64().unwrap_or_default();
            format!("bought {} bytes for {cost}, {fees} sat of fees, in {seconds:.1} s", number("bytes"))
        }
        _ => return None,
    })
}

fn tab(side: &Value) -> String {
    format!("{} paid, {} spent", msat(&side["paid_msat"]), msat(&side["spent_msat"]))
}

pub(crate) fn msat(value: &Value) -> Msat {
    Msat::new(value.as_u64().unwrap_or_default())
}

fn price(value: &Value) -> Price {
    Price::per_gib(value.as_u64().unwrap_or_default())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The hash of a file; of a folder, that of the paths and hashes of its regular files, which are what is sold of it.
async fn hash(path: &Path) -> Result<String> {
    let path = path.to_owned();
    // Ctrl-C is heard meanwhile.
    spawn_blocking(move || hash_of(&path)).await?
}

fn hash_of(path: &Path) -> Result<String> {
    let (mut hashes, mut places) = (BTreeMap::new(), vec![path.to_owned()]);
    while let Some(place) = places.pop() {
        let reading = || format!("reading {}", place.display());
        let found = place.symlink_metadata().with_context(reading)?;
        if found.is_dir() {
            for child in place.read_dir().with_context(reading)? {
                places.push(child?.path());
            }
        } else if found.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&place).with_context(reading)?)?;
            hashes.insert(place.strip_prefix(path)?.to_owned(), hasher.finalize().to_hex().to_string());
        }
    }
    if let Some(file) = hashes.remove(Path::new("")) {
        return Ok(file);
    }
    let folder = hashes.iter().flat_map(|(path, hash)| [path.as_os_str().as_encoded_bytes(), hash.as_bytes()].concat());
    Ok(blake3::hash(&folder.collect::<Vec<_>>()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advance_is_enough_for_whatever_is_bought() {
        let gib = |gib: u64| Price::per_gib(7_000_000).charge(gib << 30).unwrap();
        assert_eq!(advance_sat(Msat::ZERO), ADVANCE_SAT);
        assert_eq!(advance_sat(Msat::new(437_500)), ADVANCE_SAT);
        assert_eq!(advance_sat(gib(1)), 7_001);
        assert_eq!(advance_sat(Msat::new(7_000_001)), 7_002, "a part of a sat is paid as a whole one");
        assert_eq!(advance_sat(gib(1_000)), 7_000_001);
    }

    #[test]
    fn what_was_bought_before_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bought", "bought-2", "bought-3"] {
            let place = free_place(dir.path());
            assert_eq!(place, dir.path().join(name));
            std::fs::create_dir(place).unwrap();
        }
    }

    #[test]
    fn a_folder_is_hashed_by_what_is_sold_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        for folder in [&one, &other] {
            std::fs::create_dir_all(folder.join("sub")).unwrap();
            std::fs::write(folder.join("sub/a"), "a").unwrap();
        }
        std::os::unix::fs::symlink("sub", one.join("link")).unwrap();
        assert_eq!(hash_of(&one).unwrap(), hash_of(&other).unwrap());
        std::fs::rename(other.join("sub/a"), other.join("sub/b")).unwrap();
        assert_ne!(hash_of(&one).unwrap(), hash_of(&other).unwrap());
        assert_eq!(hash_of(&one.join("sub/a")).unwrap(), blake3::hash(b"a").to_hex().to_string());
    }
}
