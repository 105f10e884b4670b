//! The news of a purchase on its way to the client, which may read slowly.
//!
//! **Invariant:** of progress only the newest is kept; everything else arrives, in its order. What waits is bounded by what
//! the purchase itself remembers: its quotes, its payment, and a failure for each one that it notes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::purchase::News;

/// A way for news, from the purchase and to its client.
pub(super) fn feed() -> (Teller, Feed) {
    let shared = Arc::new(Shared::default());
    (Teller(Arc::clone(&shared)), Feed(shared))
}

/// The purchase's end; the feed is over when it is dropped.
pub(super) struct Teller(Arc<Shared>);

/// The client's end.
pub(super) struct Feed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    news: VecDeque<News>,
    progress: Option<News>,
    is_over: bool,
}

impl Teller {
    /// Takes news without waiting.
    pub(super) fn tell(&self, news: News) {
        let mut waiting = self.0.waiting();
        match news {
            News::Progress { .. } => waiting.progress = Some(news),
            news => waiting.news.push_back(news),
        }
        drop(waiting);
        self.0.more.notify_one();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.waiting().is_over = true;
        self.0.more.notify_one();
    }
}

impl Feed {
    /// The next news; nothing once the purchase has told all.
    pub(super) async fn next(&mut self) -> Option<News> {
        loop {
            {
                let mut waiting = self.0.waiting();
                let next = waiting.news.pop_front().or_else(|| waiting.progress.take());
                if next.is_some() || waiting.is_over {
                    return next;
                }
            }
            // A word that came since then is kept for this.
            self.0.more.notified().await;
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one step: a panic leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::PeerId;
    use pedlar_protocol::money::Msat;
    use tokio::sync::mpsc;

    use super::*;
    use crate::api::Out;
    use crate::cmd::get::{Line, relay};
    use crate::purchase::PaymentNews;

    /// Far more than any queue on the way has places.
    const FAILURES: u64 = 1_000;

    #[tokio::test]
    async fn a_slow_reader_misses_old_progress_and_nothing_else() {
        let (teller, feed) = feed();
        let seller = PeerId::random();
        for number in 0..FAILURES {
            (0..10).for_each(|step| teller.tell(News::Progress { bytes: 10 * number + step, total: 10 * FAILURES }));
            teller.tell(News::Failed { seller, reason: number.to_string() });
        }
        teller.tell(News::Payment(PaymentNews::Credited { paid: Msat::new(7) }));
        drop(teller);

        // A client that takes one line at a time, and whose queue has no place for more.
        let (lines, mut queue) = mpsc::channel(1);
        let told = async {
            relay(feed, &Out::new(lines)).await.unwrap();
        };
        let read = async {
            let mut read = Vec::new();
            while let Some(line) = queue.recv().await {
                tokio::task::yield_now().await;
                read.push(serde_json::from_str::<Line>(&line).unwrap());
            }
            read
        };
        let ((), read) = tokio::join!(told, read);
        let failures = read.iter().filter_map(|line| match line {
            Line::Failed { reason, .. } => reason.parse::<u64>().ok(),
            _ => None,
        });
        assert!(failures.eq(0..FAILURES), "each failure, in its order");
        assert!(read.iter().any(|line| matches!(line, Line::Credited { paid_msat: 7 })));
        let progress = read.iter().filter(|line| matches!(line, Line::Progress { .. })).count();
        assert!(progress <= 1, "the newest at most: {progress}");
    }

    #[tokio::test]
    async fn the_newest_progress_comes_when_it_is_asked_for() {
        let (teller, mut feed) = feed();
        let told = tokio::spawn(async move {
            for bytes in 1..=50_000 {
                teller.tell(News::Progress { bytes, total: 50_000 });
                if bytes % 1_000 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let (mut last, mut seen) = (0, 0);
        while let Some(News::Progress { bytes, .. }) = feed.next().await {
            assert!(bytes > last, "never backwards");
            (last, seen) = (bytes, seen + 1);
        }
        told.await.unwrap();
        assert!(last == 50_000 && seen < 50_000, "{seen} were told, the last of {last}");
    }
}
