//! Electrum over TLS: the certificate of the first connection is pinned, and another one only counts once its owner says so.

use pedlar_devnet::electrum::{Certificate, ElectrumServer};
use pedlar_tests::cluster::{Peer, text, until};
use serde_json::Value;

use crate::world;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_not_used_until_it_is_trusted() {
    let world = world().await;
    let (first, second) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
    let secure = ElectrumServer::spawn_tls(world.chain.clone(), "127.0.0.1:0", &first).await.unwrap();
    let url = secure.url();
    assert!(url.starts_with("ssl://"), "{url}");
    let mut node = world.node_asking("node", &[url.clone(), world.electrum.url()]).await;
    first_is(&node, |server| server["state"] == "up").await;
    let checks = node.home.begin(&["doctor"]).unwrap();
    assert!(found(checks, &url).await.contains(&first.fingerprint), "the one of the first use is pinned");

    // Another one is refused, and the wallet goes on with the next server; a restart forgets nothing.
    secure.show(&second);
    for fault in 0..2 {
        let refused = refused(&node, &first, &second).await;
        let command = format!("pedlar wallet trust {url} {}", second.fingerprint);
        assert!(text(&refused["hint"]).ends_with(&command), "{refused}");
        world.chain.mine_to_self(1);
        let height = world.chain.height();
        until("the other server is used", async || {
            (node.one(&["status"], "status").await["tip"] == height).then_some(())
        })
        .await;
        if fault == 0 {
            node.stop().await;
            node.restart().await;
        }
    }

    // One that nobody shows helps nothing; the right one does, however its digits are written.
    let nobodys = "4f".repeat(32);
    node.ask(&["wallet", "trust", &url, &nobodys]).await;
    let pinned = first_is(&node, |server| tells(server, &nobodys, &second.fingerprint)).await;
    assert_eq!(pinned["state"], "down");
    let written = second.fingerprint.to_uppercase();
    let trusted = node.one(&["wallet", "trust", &url, &written], "trusted").await;
    assert_eq!(text(&trusted["fingerprint"]), second.fingerprint);
    first_is(&node, is_usable).await;

    // The old one is as foreign now as any other; said in lower case and with colons, it is trusted again.
    secure.show(&first);
    refused(&node, &second, &first).await;
    let pairs: Vec<&str> = (0..32).map(|byte| &first.fingerprint[2 * byte..2 * byte + 2]).collect();
    node.ask(&["wallet", "trust", &url, &pairs.join(":")]).await;
    first_is(&node, is_usable).await;
    println!("faults fired: 3");
}

/// Waits until the node's first server is as wanted; how `status` tells it.
async fn first_is(node: &Peer, wanted: impl Fn(&Value) -> bool) -> Value {
    until("the first server is as wanted", async || {
        let server = node.one(&["status"], "status").await["servers"][0].clone();
        wanted(&server).then_some(server)
    })
    .await
}

fn is_usable(server: &Value) -> bool {
    server["state"] == "up" || server["state"] == "standby"
}

/// Waits until the first server is down because it shows another certificate than the pinned one.
async fn refused(node: &Peer, pinned: &Certificate, shown: &Certificate) -> Value {
    let refused = first_is(node, |server| tells(server, &pinned.fingerprint, &shown.fingerprint)).await;
    assert_eq!(refused["state"], "down");
    refused
}

/// Whether what is wrong with a server is that it shows another certificate than the pinned one.
fn tells(server: &Value, pinned: &str, shown: &str) -> bool {
    let told = format!("{pinned} was pinned, {shown} is shown");
    server["reason"].as_str().is_some_and(|reason| reason.contains(&told))
}

/// What `doctor` found at a server, whatever it says of the rest.
async fn found(mut doctor: pedlar_devnet::node::Running, url: &str) -> String {
    let mut found = None;
    while let Some(line) = doctor.next().await.unwrap() {
        let is_it = line["name"] == "electrum" && line["found"].as_str().is_some_and(|text| text.contains(url));
        found = found.or(is_it.then(|| text(&line["found"]).to_owned()));
    }
    found.expect("the server is looked at")
}
