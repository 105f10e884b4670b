//! Gossip goes no further than the verdict lets it.

use std::time::Duration;

use pedlar_net::{MAX_MESSAGE, PublishError, Verdict};

use crate::cluster::{Node, eventually, next, node};

/// A - B - C in a line: without lookups the ends never meet.
async fn line() -> [Node; 3] {
    let b = node(|config| config.kad_server = false).await;
    let a = node(|config| (config.kad_server, config.bootstrap) = (false, b.links())).await;
    let c = node(|config| (config.kad_server, config.bootstrap) = (false, b.links())).await;
    for end in [&a, &c] {
        eventually("the line is connected", || end.is_connected_to(b.peer())).await;
    }
    [a, b, c]
}

/// Publishes as soon as somebody listens.
async fn publish(node: &Node, data: &[u8]) {
    eventually("somebody listens", || async {
        match node.net.publish(data.to_vec()).await {
            Ok(()) => true,
            Err(PublishError::NoPeers) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_accepted_is_forwarded() {
    let [a, mut b, mut c] = line().await;
    for (data, verdict) in
        [(b"rejected", Verdict::Reject), (b"ignored!", Verdict::Ignore), (b"accepted", Verdict::Accept)]
    {
        publish(&a, data).await;
        let message = next(&mut b.events.messages).await;
        assert_eq!((message.data.as_slice(), message.source), (data.as_slice(), a.peer()));
        // The far end must listen before B forwards, or the message is lost to it; then it proves nothing.
        tokio::time::sleep(Duration::from_secs(2)).await;
        b.net.verdict(message.id, message.source, verdict).await;
    }
    let message = next(&mut c.events.messages).await;
    assert_eq!((message.data.as_slice(), message.source), (b"accepted".as_slice(), b.peer()));
    assert!(c.events.messages.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_invalid_message_silences_a_peer() {
    let [a, mut b, c] = line().await;
    for n in 0..3_u8 {
        publish(&a, &[n; 100]).await;
        let message = next(&mut b.events.messages).await;
        assert_eq!(message.source, a.peer());
        b.net.verdict(message.id, message.source, Verdict::Reject).await;
    }
    // Commands are carried out in order: after this answer the last verdict counts.
    b.net.peers().await;
    a.net.publish(vec![9; 100]).await.unwrap();
    publish(&c, b"honest").await;
    assert_eq!(next(&mut b.events.messages).await.data, b"honest");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(b.events.messages.try_recv().is_err(), "the liar is not heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_says_why_not() {
    let alone = node(|_| {}).await;
    assert_eq!(alone.net.publish(vec![1]).await, Err(PublishError::NoPeers));
    let len = MAX_MESSAGE + 1;
    assert_eq!(alone.net.publish(vec![1; len]).await, Err(PublishError::TooLarge { len }));
    let other = node(|config| config.bootstrap = alone.links()).await;
    publish(&other, b"twice").await;
    assert_eq!(other.net.publish(b"twice".to_vec()).await, Err(PublishError::Duplicate));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_costs_messages_not_memory() {
    let reader = node(|config| config.kad_server = false).await;
    let writer = node(|config| (config.kad_server, config.bootstrap) = (false, reader.links())).await;
    publish(&writer, b"first").await;
    for n in 0..1500_u32 {
        let mut data = vec![0; 200];
        data[..4].copy_from_slice(&n.to_le_bytes());
        while writer.net.publish(data.clone()).await == Err(PublishError::Busy) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    eventually("some are ignored", || async { reader.net.ignored_messages() > 0 }).await;
    assert!(reader.events.messages.len() <= 1024);
}
