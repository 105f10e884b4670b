//! The Electrum servers: which one is in use, which stand by, which are set aside and why.

use std::time::{Duration, Instant};

use crate::electrum::{MAX_BEHIND, ServerFault, ServerUrl};
use crate::status::{ServerState, ServerStatus};

/// The first wait before a server that failed is tried again; each further failure doubles it, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Polls of the server in use between two looks at the others.
const POLLS_A_VISIT: u32 = 4;

/// All servers, in the order of the configuration; there is at least one.
///
/// **Invariant:** a server with a fault is used only when its time to be tried again has come, or all have one.
pub(super) struct Servers {
    first: Server,
    others: Vec<Server>,
    /// The place of the one in use, or tried next.
    current: usize,
    /// The place of the one that is being looked at.
    visiting: Option<usize>,
    visit_at: Instant,
    visit_every: Duration,
}

struct Server {
    url: ServerUrl,
    state: ServerState,
    since_ms: Option<u64>,
    /// The height that it last named.
    tip: Option<u32>,
    failures: u32,
    retry_at: Instant,
}

impl Servers {
    /// `urls` in order of preference; `None` when there are none.
    pub(super) fn new(urls: Vec<ServerUrl>, poll: Duration, now: Instant) -> Option<Self> {
        let untried =
            |url| Server { url, state: ServerState::Standby, since_ms: None, tip: None, failures: 0, retry_at: now };
        let mut all = urls.into_iter().map(untried);
        let first = Server { state: ServerState::Connecting, ..all.next()? };
        let visit_every = poll.saturating_mul(POLLS_A_VISIT);
        Some(Self { first, others: all.collect(), current: 0, visiting: None, visit_at: now, visit_every })
    }

    /// The server in use, or tried next.
    pub(super) fn current(&self) -> &ServerUrl {
        &self.at(self.current).url
    }

    /// When the current server may be connected to.
    pub(super) fn connect_at(&self) -> Instant {
        self.at(self.current).retry_at
    }

    /// Each server as it stands, in the order of the configuration.
    pub(super) fn statuses(&self) -> Vec<ServerStatus> {
        let status = |server: &Server| ServerStatus {
            url: server.url.clone(),
            state: server.state.clone(),
            since_ms: server.since_ms,
            tip: server.tip,
        };
        self.all().map(status).collect()
    }

    /// Whether another server could take over: one that is not set aside.
    pub(super) fn has_spare(&self) -> bool {
        self.places().any(|place| place != self.current && !self.at(place).is_down())
    }

    pub(super) fn handle_connected(&mut self, now_ms: u64) {
        self.at_mut(self.current).enter(ServerState::Up, now_ms);
    }

    /// The server in use told everything, and that its chain has this height; `own_tip` is what the wallet knows.
    ///
    /// # Errors
    ///
    /// When it is behind and another one could take over.
    pub(super) fn handle_synced(&mut self, tip: u32, own_tip: u32) -> Result<(), ServerFault> {
        let server = self.at_mut(self.current);
        (server.tip, server.failures) = (Some(tip), 0);
        match self.blocks_behind(tip, own_tip) {
            Some(blocks) if self.has_spare() => Err(ServerFault::Behind { blocks }),
            Some(_) | None => Ok(()),
        }
    }

    /// Sets the server in use aside; the next one is to be connected to, at once where it has no fault.
    pub(super) fn handle_failed(&mut self, fault: ServerFault, now: Instant, now_ms: u64) {
        self.at_mut(self.current).fail(fault, now, now_ms);
        let count = self.places().count();
        // In turn after the current one, so that no two are tried for ever while a third would serve.
        let turn = |place: usize| (place + count - self.current - 1) % count;
        let next = self.places().min_by_key(|&place| {
            let server = self.at(place);
            (server.is_down().then_some(server.retry_at), turn(place))
        });
        self.current = next.unwrap_or(0);
    }

    /// When another server is to be looked at; `None` where there is none, or one is being looked at.
    pub(super) fn visit_at(&self) -> Option<Instant> {
        (self.visiting.is_none() && !self.others.is_empty()).then_some(self.visit_at)
    }

    /// Has the others looked at soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.visit_at = now;
    }

    /// The server to be looked at now: of those not in use, the one that waited longest.
    pub(super) fn next_visit(&mut self, now: Instant) -> Option<ServerUrl> {
        self.visit_at().filter(|&at| at <= now)?;
        self.visit_at = now + self.visit_every;
        let idle = self.places().filter(|&place| place != self.current && self.at(place).retry_at <= now);
        let place = idle.min_by_key(|&place| self.at(place).retry_at)?;
        self.visiting = Some(place);
        Some(self.at(place).url.clone())
    }

    /// The server that is being looked at.
    pub(super) fn visited(&self) -> Option<&ServerUrl> {
        self.visiting.map(|place| &self.at(place).url)
    }

    /// What came of the look at another server; whether the one in use is behind it.
    pub(super) fn handle_visited(
        &mut self,
        seen: Result<u32, ServerFault>,
        own_tip: u32,
        now: Instant,
        now_ms: u64,
    ) -> Option<ServerFault> {
        let place = self.visiting.take()?;
        let seen = seen.and_then(|tip| match self.blocks_behind(tip, own_tip) {
            Some(blocks) => Err(ServerFault::Behind { blocks }),
            None => Ok(tip),
        });
        let server = self.at_mut(place);
        match seen {
            Err(fault) => server.fail(fault, now, now_ms),
            Ok(tip) => {
                (server.tip, server.failures, server.retry_at) = (Some(tip), 0, now);
                // It may have become the one in use meanwhile.
                if place != self.current {
                    self.at_mut(place).enter(ServerState::Standby, now_ms);
                }
            }
        }
        let current = self.at(self.current);
        let in_use = current.tip.filter(|_| current.state == ServerState::Up && self.has_spare())?;
        self.blocks_behind(in_use, own_tip).map(|blocks| ServerFault::Behind { blocks })
    }

    /// How far this height is behind the best that is known, if that is too far.
    fn blocks_behind(&self, tip: u32, own_tip: u32) -> Option<u32> {
        let told = self.all().filter(|server| !server.is_down()).filter_map(|server| server.tip);
        let behind = told.max().unwrap_or(0).max(own_tip).saturating_sub(tip);
        (behind > MAX_BEHIND).then_some(behind)
    }

    fn all(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn places(&self) -> std::ops::RangeInclusive<usize> {
        0..=self.others.len()
    }

    fn at(&self, place: usize) -> &Server {
        place.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }

    fn at_mut(&mut self, place: usize) -> &mut Server {
        place.checked_sub(1).and_then(|other| self.others.get_mut(other)).unwrap_or(&mut self.first)
    }
}

impl Server {
    fn is_down(&self) -> bool {
        matches!(self.state, ServerState::Down(_))
    }

    fn enter(&mut self, state: ServerState, now_ms: u64) {
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.since_ms = Some(now_ms);
        }
        self.state = state;
    }

    fn fail(&mut self, fault: ServerFault, now: Instant, now_ms: u64) {
        let news = self.state != ServerState::Down(fault.clone());
        if news {
            tracing::warn!(server = %self.url, "electrum server: {fault}");
        }
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + wait;
        // What it said of its height was a reason to prefer it: no more.
        self.tip = None;
        self.enter(ServerState::Down(fault), now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);

    fn servers(count: u16) -> (Servers, Instant) {
        let urls = (1..=count).map(|port| format!("tcp://127.0.0.1:{port}").parse().unwrap());
        let now = Instant::now();
        (Servers::new(urls.collect(), POLL, now).unwrap(), now)
    }

    fn port(servers: &Servers) -> u16 {
        servers.current().port
    }

    #[test]
    fn a_server_that_fails_is_left_for_the_next_at_once() {
        let (mut servers, now) = servers(3);
        for expected in [2, 3] {
            servers.handle_failed(ServerFault::Timeout, now, 1);
            assert_eq!(port(&servers), expected);
            assert!(servers.connect_at() <= now, "it is connected to at once");
        }
        // All have failed: the one that failed first is tried again first, after a while.
        servers.handle_failed(ServerFault::Timeout, now, 1);
        assert_eq!(port(&servers), 1);
        assert_eq!(servers.connect_at(), now + FIRST_RETRY);
        assert!(!servers.has_spare());
    }

    #[test]
    fn one_server_is_tried_again_ever_more_slowly_and_forgiven_when_it_serves() {
        let (mut servers, now) = servers(1);
        let waits: Vec<_> = (0..7)
            .map(|_| {
                servers.handle_failed(ServerFault::Closed, now, 1);
                (servers.connect_at() - now).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        servers.handle_connected(2);
        servers.handle_synced(10, 13).unwrap_or_else(|fault| panic!("there is no other: {fault}"));
        servers.handle_failed(ServerFault::Closed, now, 3);
        assert_eq!(servers.connect_at(), now + FIRST_RETRY);
        assert_eq!(servers.visit_at(), None, "there is nobody else to look at");
    }

    #[test]
    fn a_server_that_is_behind_is_left_and_one_that_was_looked_at_is_set_aside() {
        let (mut servers, now) = servers(2);
        servers.handle_connected(1);
        servers.handle_synced(100, 100).unwrap();
        assert_eq!(servers.next_visit(now).map(|url| url.port), Some(2));
        assert_eq!(servers.next_visit(now), None, "one at a time");
        assert_eq!(servers.handle_visited(Ok(102), 100, now, 2), None, "two blocks are no reason");
        let later = now + POLL * POLLS_A_VISIT;
        servers.next_visit(later).unwrap();
        let fault = servers.handle_visited(Ok(103), 100, later, 3).unwrap();
        assert_eq!(fault, ServerFault::Behind { blocks: 3 });
        servers.handle_failed(fault, later, 3);
        assert_eq!(port(&servers), 2);
        servers.handle_connected(4);
        servers.handle_synced(103, 103).unwrap();
        // The other one is still behind.
        let later = later + POLL * POLLS_A_VISIT;
        servers.next_visit(later).unwrap();
        assert_eq!(servers.handle_visited(Ok(100), 103, later, 5), None);
        assert_eq!(servers.statuses()[0].state, ServerState::Down(ServerFault::Behind { blocks: 3 }));
        assert_eq!(port(&servers), 2);
    }

    #[test]
    fn a_height_that_a_server_can_not_show_counts_no_more() {
        let (mut servers, now) = servers(2);
        servers.handle_connected(1);
        servers.handle_synced(100, 100).unwrap();
        servers.next_visit(now).unwrap();
        let fault = servers.handle_visited(Ok(5_000), 100, now, 2).unwrap();
        servers.handle_failed(fault, now, 2);
        // It was a lie: what it shows is refused.
        servers.handle_failed(ServerFault::Misbehaved, now, 3);
        assert_eq!(port(&servers), 1);
        servers.handle_connected(4);
        servers.handle_synced(100, 100).unwrap();
    }
}
