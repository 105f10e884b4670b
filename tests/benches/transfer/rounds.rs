//! Purchases and what they are held against, in turns: each round runs each once, every second round backwards.

use std::path::PathBuf;

use crate::Options;
use crate::bare::{Source, TLS};
use crate::market::{Good, Market, PRICE};
use crate::measure::{Report, Run, Target};
use crate::others::{Seed, Sendme, has_libtorrent, program};

/// A plain TCP address of loopback.
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// An earlier build of ours: only where it is asked for.
const BEFORE: &str = "before";

/// What the paid purchase is held against: its name, what is said of it, and the least ratio.
const RIVALS: [(&str, &str, f64); 5] = [
    (BEFORE, "paid / paid by the program of BEFORE_EXE", 0.97),
    ("unpaid", "paid / unpaid", 0.97),
    ("bare", "paid / bare copy on the same swarm", 0.85),
    ("sendme", "paid / sendme", 1.5),
    ("libtorrent", "paid / libtorrent", 0.8),
];

enum Rival {
    Before(Box<Market>, Good),
    Unpaid(Good),
    Bare(Source),
    Sendme(Sendme),
    Libtorrent(Seed, PathBuf),
}

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let market = Market::open().await;
    let good = market.publish("film", options.size, PRICE).await;
    let mut rivals = Vec::new();
    for (name, figure, least) in RIVALS {
        let is_default = options.against.is_empty() && name != BEFORE;
        if !is_default && !options.against.iter().any(|wanted| wanted == name) {
            continue;
        }
        match Rival::ready(name, &market, &good).await {
            Ok(rival) => rivals.push((figure, least, rival, Vec::new())),
            Err(why) => report.skipped(figure, why),
        }
    }
    // The first purchase also makes the connection and fills the page cache.
    market.buy(&good).await;
    let mut paid: Vec<Run> = Vec::new();
    for round in 0..options.pairs {
        let backwards = round % 2 == 1;
        if !backwards {
            paid.push(market.buy(&good).await);
        }
        let mut order: Vec<_> = rivals.iter_mut().collect();
        if backwards {
            order.reverse();
        }
        for (.., rival, runs) in order {
            runs.push(rival.run(&market, &good).await);
        }
        if backwards {
            paid.push(market.buy(&good).await);
        }
    }
    for (figure, least, _, runs) in &rivals {
        report.ratio(figure, &paid, runs, Target::AtLeast(*least));
    }
}

impl Rival {
    /// Makes it ready to transfer the same file, or says why it can't be.
    async fn ready(name: &str, market: &Market, good: &Good) -> Result<Self, &'static str> {
        match name {
            BEFORE => {
                let program = std::env::var("BEFORE_EXE").map_err(|_| "BEFORE_EXE names no program")?;
                let market = Market::of(&program).await;
                let good = market.publish("film", good.len, PRICE).await;
                Ok(Self::Before(Box::new(market), good))
            }
            "unpaid" => Ok(Self::Unpaid(market.publish("free film", good.len, "0sat/GiB").await)),
            "bare" => Ok(Self::Bare(Source::start(&good.file, LOOPBACK, TLS).await)),
            "sendme" => {
                let program = program("SENDME_EXE", "sendme").await;
                let program = program.ok_or("no `sendme`: cargo install sendme, or set SENDME_EXE")?;
                Ok(Self::Sendme(Sendme::start(program, &good.file, market.world.path("sendme")).await))
            }
            _ if !has_libtorrent().await => Err("no libtorrent: apt install python3-libtorrent"),
            _ => {
                let seed = Seed::start(&good.file, market.world.path("film.torrent")).await;
                Ok(Self::Libtorrent(seed, market.world.path("leech")))
            }
        }
    }

    async fn run(&self, market: &Market, good: &Good) -> Run {
        let name = "film";
        match self {
            Self::Before(before, good) => before.buy(good).await,
            Self::Unpaid(free) => market.buy(free).await,
            Self::Bare(source) => source.copy_to(&market.destination(), good.len).await,
            Self::Sendme(sendme) => sendme.receive(name, good.len).await,
            Self::Libtorrent(seed, folder) => seed.leech(folder, name, good.len).await,
        }
    }
}
