//! What a node costs that does nothing, in a market of 50 that all sell something.

use std::path::Path;
use std::time::{Duration, Instant};

use pedlar_tests::cluster::{Peer, World};
use tokio::process::Command;

use crate::measure::{Process, Report, Target, median};
use crate::{Options, PROGRAM};

/// Nodes of the market.
const NODES: usize = 50;

/// Starts that the start time is the median of.
const STARTS: usize = 5;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let stripped = stripped_mib().await;
    report.row("size of the program, MiB", mib(Path::new(PROGRAM)), Target::None, &format!("{stripped:.1} stripped"));

    let world = World::new(PROGRAM).await;
    let mut nodes: Vec<Peer> = Vec::new();
    for number in 0..NODES {
        let node = world.node(&format!("node-{number}")).await;
        let sample = world.file(&format!("sample-{number}"), 1 << 20);
        node.publish(&sample, crate::market::PRICE).await;
        nodes.push(node);
    }
    let (ours, others) = nodes.split_last_mut().expect("there are nodes");
    let mut starts_s = Vec::new();
    for _ in 0..STARTS {
        ours.stop().await;
        let begun = Instant::now();
        ours.restart().await;
        starts_s.push(begun.elapsed().as_secs_f64());
    }
    let detail = format!("to `ready`, the seed's decryption included, median of {STARTS}");
    report.row("start of a node, s", median(starts_s), Target::None, &detail);
    for other in others {
        ours.knows(other).await;
    }

    let process = Process(ours.pid());
    let before_s = process.cpu_s();
    let watched = Duration::from_secs(60 * options.idle_minutes);
    tokio::time::sleep(watched).await;
    let used_s = process.cpu_s() - before_s;
    let detail = format!("{:.3} % of a core, of {NODES} nodes", 100.0 * used_s / watched.as_secs_f64());
    report.row(&format!("CPU of an idle node in {} min, s", options.idle_minutes), used_s, Target::None, &detail);
    report.row("memory of an idle node, MiB", process.resident_mib(), Target::None, "");
}

fn mib(file: &Path) -> f64 {
    std::fs::metadata(file).map_or(f64::NAN, |file| file.len() as f64 / f64::from(1 << 20))
}

async fn stripped_mib() -> f64 {
    let copy = tempfile::NamedTempFile::new().expect("a file");
    let stripped = Command::new("strip").arg("-o").arg(copy.path()).arg(PROGRAM).status().await;
    if stripped.is_ok_and(|status| status.success()) { mib(copy.path()) } else { f64::NAN }
}
