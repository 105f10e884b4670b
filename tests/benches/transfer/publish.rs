//! Publishing a file against `b3sum` of the same file, both on all cores and from the page cache.

use pedlar_tests::cluster::{path, text};
use tokio::process::Command;

use crate::Options;
use crate::market::{Market, PRICE};
use crate::measure::{Process, Report, Run, Target, quiet_disk};
use crate::others::program;

const FIGURE: &str = "publish / b3sum";

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let Some(program) = program("B3SUM_EXE", "b3sum").await else {
        return report.skipped(FIGURE, "no `b3sum`: cargo install b3sum, or set B3SUM_EXE");
    };
    let market = Market::open().await;
    let file = market.world.file("film", options.size);
    let seller = [Process(market.seller.pid())];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        quiet_disk().await;
        let verb = ["publish", path(&file), "--price", PRICE];
        let publishing = market.seller.home.one(&verb, "published");
        let (run, published) = Run::of(options.size, &seller, publishing).await;
        let published = published.expect("a file can be published");
        ours.push(run);
        market.seller.ask(&["unpublish", text(&published["link"])]).await;

        let before_s = Process::ended_children_cpu_s();
        let (mut run, sum) = Run::of(options.size, &[], Command::new(&program).arg(&file).output()).await;
        run.cpu_s = Process::ended_children_cpu_s() - before_s;
        let sum = String::from_utf8(sum.expect("b3sum runs").stdout).expect("a sum");
        assert!(sum.starts_with(text(&published["root"])), "b3sum computes the same root");
        theirs.push(run);
    }
    report.ratio(FIGURE, &ours, &theirs, Target::AtLeast(0.7));
}
