//! Many buyers at once on one seller, against one alone.
//!
//! The buyers are light: each has a swarm, an account with an advance, and verifies what it is sent, but all share one
//! process and write nothing to disk, so that the seller and not the machine's memory is the limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use pedlar_protocol::content::Root;
use pedlar_tests::cluster::{World, path, text};
use pedlar_tests::hostile::Freeloader;
use tokio::sync::Barrier;

use crate::measure::{Process, Report, Target};
use crate::{Options, PROGRAM};

/// What each of the many buys.
const SHARE: u64 = 16 << 20;

/// Advances asked for at once: the seller keeps a bounded number of open ones.
const AT_ONCE: usize = 20;

const ADVANCE_SAT: u64 = 5_000;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let world = World::new(PROGRAM).await;
    let seller = world.node("seller").await;
    let mut roots = Vec::new();
    for (name, len) in [("film", options.size), ("song", SHARE)] {
        let file = world.file(name, len);
        let published = seller.one(&["publish", path(&file), "--price", crate::market::PRICE], "published").await;
        roots.push(text(&published["root"]).parse::<Root>().expect("a root"));
    }
    let process = Process(seller.pid());

    let mut crowd = Vec::new();
    let mut alone_mb_s = f64::NAN;
    let mut before_mib = f64::NAN;
    while crowd.len() < options.buyers {
        let coming = (0..AT_ONCE.min(options.buyers - crowd.len())).map(|_| async {
            let buyer = Freeloader::new(&world, &seller, seller.addrs()).await;
            buyer.top_up(&world, ADVANCE_SAT).await;
            Arc::new(buyer)
        });
        let came = join_all(coming).await;
        if crowd.is_empty() {
            let begun = Instant::now();
            let bytes = came[0].fetch(roots[0]).await;
            alone_mb_s = mb_s(bytes, begun.elapsed());
            before_mib = process.resident_mib();
        }
        crowd.extend(came);
    }

    process.forget_peak();
    let (took, whole) = all_at_once(&crowd, roots[1]).await;
    let total_mb_s = mb_s(SHARE * crowd.len() as u64, whole);
    let speeds: Vec<f64> = took.iter().map(|took| mb_s(SHARE, *took)).collect();
    let detail = format!("{total_mb_s:.0} / {alone_mb_s:.0} MB/s, {} MiB each", SHARE >> 20);
    report.row(&format!("{} buyers / one buyer, in all", crowd.len()), total_mb_s / alone_mb_s, Target::None, &detail);
    let (least, most) = (speeds.iter().copied().fold(f64::MAX, f64::min), speeds.iter().copied().fold(0.0, f64::max));
    report.row("  fairness (Jain: 1 is equal)", jain(&speeds), Target::None, &format!("{least:.1} to {most:.1} MB/s"));
    let each_mib = (process.peak_mib() - before_mib) / crowd.len() as f64;
    let detail = format!("{before_mib:.1} MiB with a few connected, {:.1} at the peak", process.peak_mib());
    report.row("  memory of the seller for each, MiB", each_mib, Target::None, &detail);
}

/// Each buyer's time for the object, and that of all together.
async fn all_at_once(crowd: &[Arc<Freeloader>], root: Root) -> (Vec<Duration>, Duration) {
    let start = Arc::new(Barrier::new(crowd.len() + 1));
    let buying: Vec<_> = crowd
        .iter()
        .map(|buyer| {
            let (buyer, start) = (Arc::clone(buyer), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let begun = Instant::now();
                assert_eq!(buyer.fetch(root).await, SHARE, "all of it comes");
                begun.elapsed()
            })
        })
        .collect();
    start.wait().await;
    let begun = Instant::now();
    let took = join_all(buying).await.into_iter().map(|took| took.expect("every buyer is served")).collect();
    (took, begun.elapsed())
}

fn mb_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

/// Jain's index: 1 when all are equal, 1/n when one has everything.
fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    sum * sum / (values.len() as f64 * squares)
}
