//! What this replica has to tell the other replicas of a fleet about endpoints, and which health checks their hints ask for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::endpoint::Member;
use crate::policy::hints::{Checks, Due, Hint, Kind, Outbox, Place};

/// What this replica has to tell, of all upstreams; nothing is kept while nobody would hear it.
#[derive(Debug, Default)]
pub(crate) struct HintsOut {
    is_open: AtomicBool,
    waiting: Mutex<Outbox>,
}

impl HintsOut {
    /// There are others to tell, or there are none.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Lets the others know something of a place, which holds for so long.
    pub(super) fn put(&self, upstream: &str, member: &Member, (kind, holds): (Kind, Duration), now: Duration) {
        if self.is_open.load(Ordering::Relaxed) {
            let place = Place {
                upstream: upstream.to_owned(),
                endpoint: member.place.endpoint.to_string(),
                address: member.address.clone(),
            };
            self.waiting().put(place, kind, holds, now);
        }
    }

    /// What is to be told now.
    pub(crate) fn due(&self, now: Duration) -> Vec<Hint> {
        self.waiting().due(now)
    }

    /// These were told, which were due at `now`.
    pub(crate) fn told(&self, hints: Vec<Hint>, now: Duration) {
        self.waiting().told(hints, now);
    }

    fn waiting(&self) -> MutexGuard<'_, Outbox> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The health checks of one upstream that hints ask for.
#[derive(Debug, Default)]
pub(super) struct HintedChecks {
    wanted: Mutex<Checks>,
    rings: Notify,
}

impl HintedChecks {
    pub(super) fn want(&self, member: &Member) {
        self.wanted().want(called(member));
        self.rings.notify_one();
    }

    pub(super) fn begins(&self, member: &Member, now: Duration) {
        self.wanted().begins(called(member), now);
    }

    /// What is to be checked now, which counts as begun: [`called`] so.
    pub(super) fn due(&self, now: Duration) -> Due {
        self.wanted().due(now)
    }

    /// Resolves when one more may be wanted.
    pub(super) async fn more(&self) {
        self.rings.notified().await;
    }

    fn wanted(&self) -> MutexGuard<'_, Checks> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells the places of an upstream apart.
pub(super) fn called(member: &Member) -> String {
    format!("{} {}", member.place.endpoint, member.address)
}
