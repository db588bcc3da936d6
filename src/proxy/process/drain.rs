//! Going down without cutting anybody off: who is still in flight, and what stage the drain has reached.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::telemetry::record::ErrorType;

/// How far the process is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainStage {
    /// Serving.
    Open,
    /// Not ready any more: connections close after their current request.
    Draining,
    /// WebSockets are closed with 1001.
    ClosingWebSockets,
    /// What is left is cut off.
    Cut,
}

/// Counts the requests in flight and tells them of the drain.
pub struct Drain {
    stage: watch::Sender<DrainStage>,
    in_flight: AtomicUsize,
    went_idle: Notify,
    /// The operator asked for an exit at once.
    forced: AtomicBool,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(DrainStage::Open),
            in_flight: AtomicUsize::new(0),
            went_idle: Notify::new(),
            forced: AtomicBool::new(false),
        }
    }
}

impl Drain {
    /// Readiness off; connections close after their current request.
    pub fn begin(&self) {
        self.advance(DrainStage::Draining);
    }

    /// Closes WebSockets with 1001 "going away".
    pub fn begin_websockets(&self) {
        self.advance(DrainStage::ClosingWebSockets);
    }

    /// Ends all that is left, as a dirty end.
    pub fn cut(&self) {
        self.advance(DrainStage::Cut);
    }

    /// As [`Drain::cut`], because a second signal asked for it.
    pub fn force(&self) {
        self.forced.store(true, Ordering::Release);
        self.cut();
    }

    /// Whether what is left is cut off now.
    pub(crate) fn is_cut(&self) -> bool {
        *self.stage.borrow() == DrainStage::Cut
    }

    /// Why what is left is cut off.
    pub(crate) fn why_cut(&self) -> ErrorType {
        if self.forced.load(Ordering::Acquire) { ErrorType::ForcedStop } else { ErrorType::Draining }
    }

    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() > DrainStage::Open
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Resolves when no request is in flight.
    pub async fn idle(&self) {
        loop {
            let notified = self.went_idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Resolves when the drain has reached `stage`.
    pub(crate) async fn reached(&self, stage: DrainStage) {
        let mut watcher = self.stage.subscribe();
        // The sender lives as long as `self`: an error cannot come.
        let _ = watcher.wait_for(|now| *now >= stage).await;
    }

    /// Counts one request in flight until the returned guard is dropped.
    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(self)
    }

    fn advance(&self, to: DrainStage) {
        self.stage.send_if_modified(|stage| {
            let further = to > *stage;
            if further {
                *stage = to;
            }
            further
        });
    }
}

/// One request in flight.
pub(crate) struct InFlight<'a>(&'a Drain);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.went_idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn idle_waits_for_the_last_request() {
        let drain = Arc::new(Drain::default());
        drain.idle().await;
        let first = drain.enter();
        let second = drain.enter();
        let waiting = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.idle().await }
        });
        drop(first);
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_is_told_though_its_turns_are_used_up() {
        let drain = Arc::new(Drain::default());
        let (polled, waiting) = tokio::sync::oneshot::channel();
        let waiter = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move {
                while tokio::task::coop::has_budget_remaining() {
                    tokio::task::coop::consume_budget().await;
                }
                let reached = drain.reached(DrainStage::Cut);
                tokio::pin!(reached);
                assert!(futures_util::poll!(&mut reached).is_pending());
                polled.send(()).unwrap();
                reached.await;
            }
        });
        waiting.await.unwrap();
        drain.begin();
        tokio::task::yield_now().await;
        drain.cut();
        waiter.await.unwrap();
    }

    #[tokio::test]
    async fn a_stage_is_never_taken_back() {
        let drain = Drain::default();
        drain.cut();
        drain.begin();
        drain.reached(DrainStage::Cut).await;
        assert!(drain.is_draining());
    }
}
