//! The peak of memory of both sides, for a small file and a large one.

use crate::market::{Market, PRICE};
use crate::measure::{Report, Target};

/// The two sizes in MiB.
const SIZES_MIB: [u64; 2] = [64, 4096];

/// The most that either side may have at its peak.
const PEAK_MIB: f64 = 150.0;

/// The most by which the peaks for the two sizes may differ.
const DIFFERENCE_MIB: f64 = 10.0;

pub(crate) async fn measure(report: &mut Report) {
    let market = Market::open().await;
    let mut goods = Vec::new();
    for size_mib in SIZES_MIB {
        goods.push(market.publish(&format!("{size_mib} MiB"), size_mib << 20, PRICE).await);
    }
    // What the first purchase of all makes once stays: connections, caches, threads.
    market.buy(&goods[0]).await;
    let mut peaks_mib = Vec::new();
    for good in &goods {
        market.processes().iter().for_each(|process| process.forget_peak());
        market.buy(good).await;
        peaks_mib.push(market.processes().map(|process| process.peak_mib()));
    }
    for (place, side) in ["seller", "buyer"].into_iter().enumerate() {
        let (small, large) = (peaks_mib[0][place], peaks_mib[1][place]);
        let detail = format!("{small:.1} MiB for {} MiB, {large:.1} for {}", SIZES_MIB[0], SIZES_MIB[1]);
        report.row(&format!("peak memory of the {side}, MiB"), small.max(large), Target::AtMost(PEAK_MIB), &detail);
        report.row("  difference of the two, MiB", (small - large).abs(), Target::AtMost(DIFFERENCE_MIB), "");
    }
}
