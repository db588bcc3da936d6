//! Whether an endpoint takes requests. What requests show and what health checks show feed one state.

use std::time::Duration;

/// Failures in a row that take an endpoint out.
const IN_A_ROW: u32 = 5;

/// Failed health checks in a row that do the same.
const CHECKS_IN_A_ROW: u32 = 2;

/// Over this time the share of failures is looked at, where there were enough requests to tell.
const WINDOW: Duration = Duration::from_secs(30);
const WINDOW_REQUESTS_MIN: u32 = 20;

/// An endpoint is out for this long, times the number of its ejections.
const EJECTION: Duration = Duration::from_secs(10);
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// After so long without an ejection the next counts as the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

/// What one request showed of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Well,
    /// No connection: nothing was sent.
    Unreachable,
    /// It took the request and failed: a 5xx, a reset, a silence, an error event, a truncation.
    Faulty,
}

/// What took an endpoint out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It could not be connected to, or failed its health checks.
    Unreachable,
    /// It could be connected to, and failed requests in a row.
    Faulty,
    /// At least half of the requests of the last while failed.
    FailureShare,
}

impl Reason {
    /// The word used in logs and the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Faulty => "faulty",
            Self::FailureShare => "failure_share",
        }
    }
}

/// Whether a request may be sent to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Half open: this one request may try.
    Probe,
    Shut,
}

/// An endpoint has just been found to be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    pub reason: Reason,
    /// When the next request may try it.
    pub until: Duration,
    /// It gets no request until then. `false` where too few would be left.
    pub ejected: bool,
}

/// The health of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Health {
    unreachable: u32,
    faulty: u32,
    checks_failed: u32,
    window: Window,
    down: Option<Down>,
    probing: bool,
    ejections: u32,
}

/// Requests of the last while.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Duration,
    requests: u32,
    failed: u32,
}

impl Health {
    /// Whether it takes a request; one that is told [`Gate::Probe`] and goes on calls [`Health::probe`].
    pub fn gate(&self, now: Duration) -> Gate {
        match &self.down {
            None => Gate::Open,
            Some(down) if now >= down.until && !self.probing => Gate::Probe,
            Some(down) if down.ejected => Gate::Shut,
            Some(_) => Gate::Open,
        }
    }

    /// Whether it is believed to answer, or may be tried again.
    pub fn is_up(&self, now: Duration) -> bool {
        self.down.is_none_or(|down| now >= down.until && !self.probing)
    }

    /// Whether it gets no requests.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.down.is_some_and(|down| down.ejected && (now < down.until || self.probing))
    }

    /// What took it out, where something did.
    pub fn down(&self) -> Option<Down> {
        self.down
    }

    /// A request is on its way that tells whether it is back.
    pub fn probe(&mut self) {
        self.probing = true;
    }

    /// That request ended without telling.
    pub fn probe_over(&mut self) {
        self.probing = false;
    }

    /// Takes in what a request showed. `may_eject`: enough others are left.
    pub fn note(&mut self, sign: Sign, now: Duration, may_eject: bool) -> Option<Down> {
        self.window.count(sign != Sign::Well, now);
        match sign {
            Sign::Well => {
                self.well(now);
                return None;
            }
            Sign::Unreachable => self.unreachable += 1,
            Sign::Faulty => self.faulty += 1,
        }
        let retried = self.down.is_some_and(|down| now >= down.until);
        let reason = match sign {
            _ if self.down.is_some() && !retried => return None,
            Sign::Unreachable if retried || self.unreachable >= IN_A_ROW => Reason::Unreachable,
            Sign::Faulty if retried || self.faulty >= IN_A_ROW => Reason::Faulty,
            _ if self.window.mostly_failed() => Reason::FailureShare,
            _ => return None,
        };
        Some(self.take_out(reason, now, may_eject))
    }

    /// Takes in how a health check ended. One that went well brings back what could not be reached; what failed requests
    /// though it answers checks must wait for its time.
    pub fn checked(&mut self, well: bool, now: Duration, may_eject: bool) -> Option<Down> {
        if well {
            self.checks_failed = 0;
            self.unreachable = 0;
            if self.down.is_some_and(|down| down.reason == Reason::Unreachable) {
                self.back();
            }
            return None;
        }
        self.checks_failed += 1;
        let is_news = self.down.is_none_or(|down| now >= down.until);
        (is_news && self.checks_failed >= CHECKS_IN_A_ROW).then(|| self.take_out(Reason::Unreachable, now, may_eject))
    }

    fn well(&mut self, now: Duration) {
        (self.unreachable, self.faulty) = (0, 0);
        // Of an ejected one before its time this is old news: the request was sent before.
        if self.down.is_some_and(|down| !down.ejected || now >= down.until) {
            self.back();
        }
    }

    fn back(&mut self) {
        (self.down, self.probing) = (None, false);
        (self.unreachable, self.faulty) = (0, 0);
        self.window = Window::default();
    }

    fn take_out(&mut self, reason: Reason, now: Duration, ejected: bool) -> Down {
        let earlier = self.down.map_or(self.window.since, |down| down.until);
        if self.down.is_none() && now.saturating_sub(earlier) > FORGIVEN_AFTER {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let until = now + EJECTION.saturating_mul(self.ejections).min(EJECTION_MAX);
        let down = Down { reason, until, ejected };
        (self.down, self.probing) = (Some(down), false);
        (self.unreachable, self.faulty) = (0, 0);
        down
    }
}

impl Window {
    fn count(&mut self, failed: bool, now: Duration) {
        if now.saturating_sub(self.since) > WINDOW {
            *self = Self { since: now, ..Self::default() };
        }
        self.requests = self.requests.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(failed));
    }

    fn mostly_failed(&self) -> bool {
        self.requests >= WINDOW_REQUESTS_MIN && self.failed.saturating_mul(2) >= self.requests
    }
}

/// Whether one more endpoint of `all` may be ejected beside those that are: at most half, and never the last.
pub fn may_eject_more(all: usize, ejected: usize) -> bool {
    (ejected + 1) * 2 <= all
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
