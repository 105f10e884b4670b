//! The bare copy over each way to secure a connection, in turns.

use pedlar_tests::cluster::World;

use crate::bare::{NOISE, Source, TLS};
use crate::measure::{Report, Run, Target};
use crate::{Options, PROGRAM};

/// What is said of it, where the source listens, and what it knows; the first is the default, which the others are held
/// against (deploy/decisions).
const TRANSPORTS: [(&str, &str, &str); 3] = [
    ("TCP with TLS, the default / itself", "/ip4/127.0.0.1/tcp/0", TLS),
    ("TCP with Noise / TCP with TLS", "/ip4/127.0.0.1/tcp/0", NOISE),
    ("QUIC / TCP with TLS", "/ip4/127.0.0.1/udp/0/quic-v1", TLS),
];

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let world = World::new(PROGRAM).await;
    let file = world.file("film", options.size);
    let dest = world.path("download");
    let mut sources = Vec::new();
    for (figure, listen, security) in TRANSPORTS {
        sources.push((figure, Source::start(&file, listen, security).await, Vec::new()));
    }
    for _ in 0..options.pairs {
        for (_, source, runs) in &mut sources {
            runs.push(source.copy_to(&dest, options.size).await);
        }
    }
    let default: Vec<Run> = sources[0].2.clone();
    for (figure, _, runs) in &sources {
        report.ratio(figure, runs, &default, Target::None);
    }
}
