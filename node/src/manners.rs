//! Streams of peers that talk nonsense are taken up late: their garbage costs them time, and nobody else.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p_identity::PeerId;
use pedlar_protocol::rate::{Limit, PeerRates};
use tokio::time::sleep;

use crate::driver::now;

/// Bad streams of one peer that are taken up at once, and how many a second after that: a new program that is misread
/// notices nothing, and a flood is as slow as this.
const NONSENSE: Limit = Limit { every: Duration::from_millis(50), burst: 50 };

/// How a peer behaved on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Its frames meant something, whatever became of them.
    Sensible,
    /// They did not, or none came.
    Nonsense,
}

/// How all peers behave.
#[derive(Clone)]
pub(crate) struct Manners {
    rates: Arc<Mutex<PeerRates>>,
}

impl Manners {
    pub(crate) fn new() -> Self {
        Self { rates: Arc::new(Mutex::new(PeerRates::new(NONSENSE))) }
    }

    /// Lets `answer` begin when it is the peer's turn, and notes how the peer behaved in it.
    pub(crate) async fn attend(self, peer: PeerId, answer: impl Future<Output = Conduct>) {
        let wait = self.with(|rates| rates.wait(now(), &peer));
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
        if answer.await == Conduct::Nonsense {
            self.with(|rates| rates.spend(now(), peer));
        }
    }

    fn with<T>(&self, step: impl FnOnce(&mut PeerRates) -> T) -> T {
        // Each change is one insertion: a panic leaves nothing half done.
        step(&mut self.rates.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
