//! Where limits are kept: in this process's memory, or in a store that several proxies share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::limits::Limit;
use crate::policy::limits::{
    Cells, Claim, Denial, Estimate, HolderView, Learned, Request, Saved, Standing, Totals, Used,
};

/// The limits of the process. They outlive reloads: holders keep what they have taken.
pub struct Limiter {
    cells: Mutex<Cells>,
    learned: Mutex<Learned>,
    /// An instant, and the wall clock then.
    anchor: (Instant, Duration),
}

impl Default for Limiter {
    fn default() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { cells: Mutex::default(), learned: Mutex::default(), anchor: (Instant::now(), wall) }
    }
}

impl Limiter {
    /// Takes all `claims`, or none.
    pub(super) fn admit(&self, claims: &mut [Claim]) -> Result<Standing, Box<Denial>> {
        let now = self.now();
        self.cells().admit(claims, now)
    }

    /// See [`Cells::report`].
    pub(super) fn report(&self, claims: &mut [Claim], before: Used, used: Used, done: bool) -> bool {
        let now = self.now();
        self.cells().report(claims, before, used, done, now)
    }

    /// What a request may take of a limit.
    pub(super) fn estimate(&self, request: &Request<'_>, limit: &Limit) -> Option<Estimate> {
        let tokens = limit.tokens.as_ref()?;
        Some(self.learned().estimate(request, tokens))
    }

    /// An answer told what it took.
    pub(super) fn learn(&self, holder: &Arc<str>, model: &Arc<str>, body_bytes: u64, input: Option<u64>, output: u64) {
        self.learned().learn(holder, model, body_bytes, input, output);
    }

    /// Forgets what is empty, and limits that are gone.
    pub fn sweep(&self, limits: &[Arc<Limit>]) {
        let now = self.now();
        self.cells().sweep(limits, now);
    }

    /// By limit: what went through it, and the share in use of its fullest cell.
    pub fn usage(&self) -> Vec<(Arc<str>, Totals, f64)> {
        let now = self.now();
        self.cells().usage(now)
    }

    /// Where a holder (as `user:alice`) stands, or those who have most in use.
    pub fn view(&self, holder: Option<&str>, most: usize) -> Vec<HolderView> {
        let now = self.now();
        self.cells().view(holder, most, now)
    }

    /// What outlives a restart.
    pub fn save(&self) -> Saved {
        let now = self.now();
        self.cells().save(now)
    }

    /// Takes up what was saved.
    pub fn restore(&self, saved: Saved, limits: &[Arc<Limit>]) {
        self.cells().restore(saved, limits);
    }

    /// Time since the Unix epoch that never goes back: the wall clock as it was at the start, and a monotonic clock since.
    fn now(&self) -> Duration {
        self.anchor.1 + self.anchor.0.elapsed()
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
