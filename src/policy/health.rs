//! Outlier detection: whether an endpoint takes requests. Results of attempts and of health checks change one state; an
//! ejected endpoint comes back through a probe, as a half-open circuit breaker does.

use std::time::Duration;

use crate::words::worded;

/// Failures in a row that eject an endpoint.
const IN_A_ROW: u32 = 5;

/// Failed health checks in a row that do the same.
const CHECKS_IN_A_ROW: u32 = 2;

/// The share of failures is looked at over this time, and where it had too few requests to tell, over as many of the last
/// minutes as it takes to have enough.
const WINDOW: Duration = Duration::from_secs(30);
const WINDOW_MAX: Duration = Duration::from_secs(600);
const WINDOW_REQUESTS_MIN: u32 = 20;

/// The window moves on by this much at a time.
const SLOT: Duration = Duration::from_secs(5);
const SLOTS: usize = (WINDOW_MAX.as_secs() / SLOT.as_secs()) as usize;

/// A probe may run for minutes: after this time a second one may start.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint is out for this long, times the number of its ejections.
const EJECTION: Duration = Duration::from_secs(10);
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// After so long without an ejection the next counts as the first; after so long without a failure so does a failure.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

/// The result of one attempt, for outlier detection; reported once, at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered, and the answer was whole.
    Well,
    /// No connection: nothing was sent.
    Unreachable,
    /// It took the request and failed: a 5xx, a reset, a silence, an error event, a truncation.
    Faulty,
}

worded! {
    /// Why an endpoint was ejected.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Reason {
        /// It could not be connected to, or failed its health checks.
        Unreachable = "unreachable",
        /// It could be connected to, and failed requests in a row.
        Faulty = "faulty",
        /// At least half of the requests of the last while failed.
        FailureShare = "failure_share",
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

/// An endpoint has been found to be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    pub reason: Reason,
    /// When it went down; it has not been back since.
    pub since: Duration,
    /// When the next request may try it.
    pub until: Duration,
    /// It gets no request until then. `false` where too few would be left.
    pub ejected: bool,
}

/// What has just changed about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    Down(Down),
    /// It is back, and was away for so long.
    Up {
        away: Duration,
    },
}

/// Failures that came one after the other with no more than [`FORGIVEN_AFTER`] between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    pub first: Duration,
    pub last: Duration,
    pub count: u64,
}

/// The health of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Health {
    row: Row,
    checks_failed: u32,
    window: Window,
    down: Option<Down>,
    /// When a request was let through that is to tell whether it is back.
    probing: Option<Duration>,
    ejections: u32,
    /// When it last went down, or came back. What was asked of it before tells nothing of it as it is now.
    turned: Duration,
    failures: Option<Failures>,
}

/// What failed since the last whole answer.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    number: u32,
    unreachable: u32,
    faulty: u32,
    /// Answers that began since, and run. They may be whole in the end: a failure is often told sooner than an answer.
    under_way: u32,
}

/// An answer has begun, in a row of failures or before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay(u32);

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub sign: Sign,
    /// When the attempt began.
    pub began: Duration,
    /// What [`Health::begins`] said, where its answer began.
    pub under_way: Option<UnderWay>,
}

/// Attempts of the last while, in slots by the time of their end: the slot of a time is its number modulo [`SLOTS`].
#[derive(Debug, Clone)]
struct Window([Slot; SLOTS]);

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    requests: u32,
    failed: u32,
}

impl Health {
    /// Whether it takes a request; one that is told [`Gate::Probe`] and goes on calls [`Health::probe`].
    pub fn gate(&self, now: Duration) -> Gate {
        match &self.down {
            None => Gate::Open,
            Some(down) if now >= down.until && !self.is_probed(now) => Gate::Probe,
            Some(down) if down.ejected => Gate::Shut,
            Some(_) => Gate::Open,
        }
    }

    /// Whether it is believed to answer, or may be tried again.
    pub fn is_up(&self, now: Duration) -> bool {
        self.down.is_none_or(|down| now >= down.until && !self.is_probed(now))
    }

    /// Whether it gets no requests.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.down.is_some_and(|down| down.ejected && (now < down.until || self.is_probed(now)))
    }

    /// What took it out, where something did.
    pub fn down(&self) -> Option<Down> {
        self.down
    }

    /// What failed lately, whether it took it out or not.
    pub fn failures(&self, now: Duration) -> Option<Failures> {
        self.failures.filter(|failures| self.down.is_some() || now.saturating_sub(failures.last) <= FORGIVEN_AFTER)
    }

    /// A person put it back in service: earlier failures are forgotten.
    pub fn forgive(&mut self, now: Duration) {
        self.row.renew();
        let row = self.row;
        *self = Self { row, turned: now, ..Self::default() };
    }

    /// A probe was sent: a request whose result decides whether it is back.
    pub fn probe(&mut self, now: Duration) {
        self.probing = Some(now);
    }

    /// The probe ended without a result.
    pub fn probe_over(&mut self) {
        self.probing = None;
    }

    /// An answer has begun: its first token came, or its head where it is in one piece. That is no verdict yet.
    pub fn begins(&mut self) -> UnderWay {
        self.row.under_way = self.row.under_way.saturating_add(1);
        UnderWay(self.row.number)
    }

    /// Such an answer has ended, or nobody waits for it any more.
    pub fn ends(&mut self, under_way: UnderWay) {
        if under_way.0 == self.row.number {
            self.row.under_way = self.row.under_way.saturating_sub(1);
        }
    }

    /// Updates the state with the result of an attempt. `may_eject`: enough other endpoints are left.
    pub fn note(&mut self, verdict: Verdict, now: Duration, may_eject: bool) -> Option<Change> {
        let Verdict { sign, began, under_way } = verdict;
        if let Some(under_way) = under_way {
            self.ends(under_way);
        }
        let may_tell = self.down.filter(|down| down.ejected).map_or(self.turned, |down| down.until);
        if began < may_tell {
            return None;
        }
        self.window.count(sign != Sign::Well, now);
        match sign {
            Sign::Well => {
                self.row.renew();
                return self.back(now);
            }
            Sign::Unreachable => self.row.unreachable += 1,
            Sign::Faulty => self.row.faulty += 1,
        }
        self.failed(now);
        let retried = self.down.is_some_and(|down| now >= down.until);
        let reason = match sign {
            _ if self.down.is_some() && !retried => return None,
            Sign::Unreachable if retried || self.row.unreachable >= IN_A_ROW => Reason::Unreachable,
            Sign::Faulty if retried || self.row.faulty >= IN_A_ROW.max(self.row.under_way) => Reason::Faulty,
            _ if self.window.mostly_failed(now, self.row.under_way) => Reason::FailureShare,
            _ => return None,
        };
        Some(Change::Down(self.take_out(reason, now, may_eject)))
    }

    /// Takes in how a health check ended. One that went well brings back what could not be reached; what failed requests
    /// though it answers checks must wait for its time.
    pub fn checked(&mut self, well: bool, now: Duration, may_eject: bool) -> Option<Change> {
        if well {
            self.checks_failed = 0;
            self.row.unreachable = 0;
            return self.down.filter(|down| down.reason == Reason::Unreachable).and_then(|_| self.back(now));
        }
        self.checks_failed += 1;
        self.failed(now);
        let is_news = self.down.is_none_or(|down| now >= down.until);
        let is_down = is_news && self.checks_failed >= CHECKS_IN_A_ROW;
        is_down.then(|| Change::Down(self.take_out(Reason::Unreachable, now, may_eject)))
    }

    fn is_probed(&self, now: Duration) -> bool {
        self.probing.is_some_and(|since| now.saturating_sub(since) < PROBE_PATIENCE)
    }

    fn failed(&mut self, now: Duration) {
        let earlier = self.failures(now);
        self.failures = Some(Failures {
            first: earlier.map_or(now, |failures| failures.first),
            last: now,
            count: earlier.map_or(0, |failures| failures.count).saturating_add(1),
        });
    }

    fn back(&mut self, now: Duration) -> Option<Change> {
        let down = self.down.take()?;
        self.row.renew();
        (self.probing, self.window, self.turned) = (None, Window::default(), now);
        Some(Change::Up { away: now.saturating_sub(down.since) })
    }

    fn take_out(&mut self, reason: Reason, now: Duration, ejected: bool) -> Down {
        if self.down.is_none() && now.saturating_sub(self.turned) > FORGIVEN_AFTER {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let until = now + EJECTION.saturating_mul(self.ejections).min(EJECTION_MAX);
        let since = self.down.map_or(now, |down| down.since);
        let down = Down { reason, since, until, ejected };
        (self.down, self.probing, self.turned) = (Some(down), None, now);
        self.row.renew();
        down
    }
}

impl Row {
    fn renew(&mut self) {
        *self = Self { number: self.number.wrapping_add(1), ..Self::default() };
    }
}

impl Default for Window {
    fn default() -> Self {
        Self([Slot::default(); SLOTS])
    }
}

impl Window {
    fn count(&mut self, failed: bool, now: Duration) {
        let number = Self::number(now);
        if let Some(slot) = self.0.get_mut((number % SLOTS as u64) as usize) {
            if slot.number != number {
                *slot = Slot { number, ..Slot::default() };
            }
            slot.requests = slot.requests.saturating_add(1);
            slot.failed = slot.failed.saturating_add(u32::from(failed));
        }
    }

    /// Whether at least half failed: of the last 30 s, or of so many more minutes that there are enough requests. What is
    /// under way may go well.
    fn mostly_failed(&self, now: Duration, under_way: u32) -> bool {
        let newest = Self::number(now);
        let (mut requests, mut failed) = (0_u32, 0_u32);
        for back in 0..SLOTS as u64 {
            if back >= WINDOW.as_secs() / SLOT.as_secs() && requests >= WINDOW_REQUESTS_MIN {
                break;
            }
            let Some(number) = newest.checked_sub(back) else { break };
            let slot = self.0.get((number % SLOTS as u64) as usize).filter(|slot| slot.number == number);
            let Some(slot) = slot else { continue };
            requests = requests.saturating_add(slot.requests);
            failed = failed.saturating_add(slot.failed);
        }
        requests >= WINDOW_REQUESTS_MIN && failed.saturating_mul(2) >= requests.saturating_add(under_way)
    }

    fn number(now: Duration) -> u64 {
        now.as_secs() / SLOT.as_secs()
    }
}

/// Whether one more endpoint of `all` may be ejected beside those that are: at most half, and never the last.
pub fn may_eject_more(all: usize, ejected: usize) -> bool {
    (ejected + 1) * 2 <= all
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "health_simulation_tests.rs"]
mod simulation;
