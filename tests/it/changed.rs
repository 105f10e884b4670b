//! A published file that is edited or removed is refused, and no wrong byte leaves.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use pedlar_tests::cluster::{Peer, number, path, text};

use crate::{MIB, PRICE, SMALL_WINDOWS, world};

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_or_removed_file_is_refused_with_the_reason() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    let dest = world.path("bought.bin");
    let (edited, removed) = (world.file("edited", MIB), world.file("removed", MIB));
    let links = [seller.publish(&edited, PRICE).await, seller.publish(&removed, PRICE).await];
    fs::write(&edited, b"something else").unwrap();
    fs::remove_file(&removed).unwrap();

    for link in &links {
        let error = buyer.refuses(&["get", link, "-o", path(&dest)], 14).await;
        assert!(text(&error["message"]).contains("changed since it was published"), "{error}");
    }
    assert_eq!(refusal(&seller, &edited).await.as_deref(), Some("the file has 14 bytes, 1048576 were published"));
    assert!(refusal(&seller, &removed).await.is_some_and(|reason| reason.contains("the file is gone")));
    assert!(!dest.exists());

    // Published again, it is sold again: as what it is now.
    let link = seller.publish(&edited, "0sat/GiB").await;
    assert!(!links.contains(&link));
    buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert_eq!(fs::read(&dest).unwrap(), b"something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpublished_stays_so_when_the_node_comes_back() {
    let world = world().await;
    let mut seller = world.node("seller").await;
    let (kept, dropped) = (world.file("kept", MIB), world.file("dropped", MIB));
    let links = [seller.publish(&kept, PRICE).await, seller.publish(&dropped, PRICE).await];
    seller.ask(&["unpublish", &links[1]]).await;
    seller.kill().await;
    seller.restart().await;
    let published = seller.ask(&["published"]).await;
    assert_eq!(published.len(), 2, "a title and the summary: {published:?}");
    assert_eq!(published[0]["path"], path(&kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_changed_under_the_seller_without_a_trace_gives_no_wrong_byte() {
    let world = world().await;
    let (seller, buyer) = (world.node_with("seller", SMALL_WINDOWS).await, world.node("buyer").await);
    let film = world.file("film", 4 * MIB);
    let link = seller.publish(&film, "0sat/GiB").await;
    let (dest, rotten) = (world.path("bought.bin"), 3 * MIB + 17);
    let original = fs::read(&film).unwrap();
    overwrite(&film, b"rot", rotten);
    let error = buyer.refuses(&["get", &link, "-o", path(&dest)], 20).await;
    assert!(text(&error["message"]).contains("changed since it was published"), "{error}");
    assert!(!dest.exists(), "what is not complete has no name");

    // What came before is right: with the file as it was, the same command completes it.
    overwrite(&film, &original[rotten as usize..][..3], rotten);
    let lines = buyer.ask(&["get", &link, "-o", path(&dest)]).await;
    assert!(fs::read(&dest).unwrap() == original);
    let bought = number(&lines.last().unwrap()["bytes"]);
    assert!(bought > 0 && bought < 4 * MIB, "{bought} bytes were still missing");
}

/// Writes into a file as a failing disk does: same length, same time, same name.
fn overwrite(file: &Path, bytes: &[u8], offset: u64) {
    let file = File::options().write(true).open(file).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.set_modified(modified).unwrap();
}

/// Why a published file is refused, as its owner sees it.
async fn refusal(seller: &Peer, file: &Path) -> Option<String> {
    let lines = seller.ask(&["published"]).await;
    let line = lines.iter().find(|line| line["path"] == path(file)).expect("it is published");
    line["refused"].as_str().map(|reason| reason.split(';').next().unwrap_or_default().to_owned())
}
