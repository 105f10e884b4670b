//! How fast payload leaves this node, to all buyers together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What may leave at once after a pause: timers are no finer, and a buyer's line is filled meanwhile.
const BURST: Duration = Duration::from_millis(100);

/// A limit for all sessions together, first come, first served; without one nothing waits.
///
/// Each piece moves the time at which all that was let through will have left, and waits for the time before it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes a second; 0 is no limit.
    limit: u64,
    left_by: Option<Instant>,
}

impl Pace {
    /// Lets so many bytes leave in a second; 0 is no limit. What waits already waits on.
    pub(super) fn set(&self, bytes_per_s: u64) {
        *self.lock() = State { limit: bytes_per_s, left_by: None };
    }

    /// Waits until a piece of so many bytes may leave.
    pub(crate) async fn wait(&self, bytes: u64) {
        let due = self.lock().let_through(bytes, Instant::now());
        if let Some(due) = due {
            sleep_until(due).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Two numbers: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When a piece may leave; nothing where it may now.
    fn let_through(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        if self.limit == 0 {
            return None;
        }
        let from = self.left_by.map_or(now, |left_by| left_by.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.limit);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Further away than a clock goes, nothing leaves sooner for it.
        self.left_by = Some(from.checked_add(takes).unwrap_or(from));
        let due = from.checked_sub(BURST)?;
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_leaves_than_the_limit_but_for_a_burst() {
        let mut state = State { limit: 1_000_000, left_by: None };
        let begun = Instant::now();
        let mut now = begun;
        for _ in 0..50 {
            now = state.let_through(100_000, now).unwrap_or(now);
        }
        // 5 MB, of which the last piece and a burst leave before their time is over.
        let took = now - begun;
        assert_eq!(took, Duration::from_millis(4_900) - BURST);
        let later = now + Duration::from_secs(60);
        assert_eq!(state.let_through(100_000, later), None, "a pause is no credit beyond a burst …");
        assert_eq!(state.let_through(100_000, later), None);
        assert_eq!(state.let_through(100_000, later), Some(later + BURST), "… and that is used up");
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut state = State::default();
        assert_eq!(state.let_through(u64::MAX, Instant::now()), None);
    }
}
