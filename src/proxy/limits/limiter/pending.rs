//! What is still to be told to the shared store: of each request only the newest totals. Bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::policy::limits::{Claim, Used};

/// Requests that may wait to be told; beyond it, what further ones used is lost to the store.
const WAITING_MAX: usize = 100_000;

/// A request in the store's books.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Entry {
    /// The reservation's number, unique in this process.
    pub(super) number: u64,
    pub(super) claims: Arc<[Claim]>,
    /// Set when a limit wants the stream cut.
    pub(super) cut: Arc<AtomicBool>,
}

/// One line for the store.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) entry: Entry,
    pub(super) used: Used,
    pub(super) done: bool,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    reports: Mutex<HashMap<u64, Report>>,
    /// Rings when something waits.
    pub(super) came: Notify,
    overflowed: AtomicBool,
}

impl Pending {
    /// Replaces what was to be told of the same request.
    pub(super) fn put(&self, report: Report) {
        let mut reports = self.reports.lock();
        if reports.len() >= WAITING_MAX && !reports.contains_key(&report.entry.number) {
            if !self.overflowed.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    event = "limits.reports_lost",
                    waiting = WAITING_MAX,
                    "the store of the limits has been away for so long that what requests used is lost to it"
                );
            }
            return;
        }
        reports.insert(report.entry.number, report);
        drop(reports);
        self.came.notify_one();
    }

    /// Up to `most` of them. They stay until they are told: telling may be broken off, and telling twice changes nothing.
    pub(super) fn some(&self, most: usize) -> Vec<Report> {
        self.reports.lock().values().take(most).cloned().collect()
    }

    /// The store knows of it; what is newer stays.
    pub(super) fn told(&self, report: &Report) {
        let mut reports = self.reports.lock();
        let is_newest = |newest: &Report| newest.used == report.used && newest.done == report.done;
        if reports.get(&report.entry.number).is_some_and(is_newest) {
            reports.remove(&report.entry.number);
        }
        if reports.is_empty() {
            self.overflowed.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reports.lock().is_empty()
    }
}
