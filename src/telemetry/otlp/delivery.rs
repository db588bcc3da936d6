//! Runs an exporter's futures, and logs exports that fail.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use opentelemetry_sdk::error::OTelSdkResult;

use crate::telemetry::queue::Dropped;
use crate::telemetry::throttle::{Rule, Throttle};

/// What an exporter's futures run on.
#[derive(Debug, Clone)]
pub(super) enum Driver {
    /// The exporting thread itself: the HTTP exporter blocks, and must not be inside a runtime.
    Thread,
    /// A runtime with a thread of its own, which keeps the gRPC connections alive between exports.
    Runtime(Arc<tokio::runtime::Runtime>),
}

impl Driver {
    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Thread => block_on(future),
            Self::Runtime(runtime) => runtime.block_on(future),
        }
    }
}

/// When the log hears that exports fail, however often a collector comes and goes.
const FAILED: Rule = Rule { after: 1, every: Duration::from_secs(60), memory: Duration::from_secs(60), things_max: 1 };

/// Counts what a collector did not take, and says so.
#[derive(Debug)]
pub(super) struct Delivery {
    /// As the standard calls it: `traces`, `metrics`, `logs`.
    signal: &'static str,
    lost: Dropped,
    complaint: Complaint,
}

impl Delivery {
    pub(super) fn new(signal: &'static str, lost: Dropped) -> Self {
        Self { signal, lost, complaint: Complaint::default() }
    }

    /// Books an export of `count` things.
    pub(super) fn ended(&mut self, result: OTelSdkResult, count: u64) -> OTelSdkResult {
        let (signal, now) = (self.signal, SystemTime::now());
        match &result {
            Ok(()) => {
                if self.complaint.is_over() {
                    tracing::info!(
                        event = "telemetry.export_recovered",
                        signal,
                        lost = self.lost.get(),
                        "{signal} reach the collector again"
                    );
                }
            }
            Err(error) => {
                self.lost.add(count);
                if self.complaint.is_due(now) {
                    tracing::warn!(
                        event = "telemetry.export_failed",
                        signal,
                        %error,
                        "{signal} do not reach the collector; what is lost is counted until they do"
                    );
                }
            }
        }
        result
    }
}

/// When to say that something fails.
#[derive(Debug)]
struct Complaint {
    said: bool,
    throttle: Throttle<()>,
}

impl Default for Complaint {
    fn default() -> Self {
        Self { said: false, throttle: Throttle::new(FAILED) }
    }
}

impl Complaint {
    /// It failed at `now`: whether to say so.
    fn is_due(&mut self, now: SystemTime) -> bool {
        let is_due = !self.said && self.throttle.came_up((), now).is_some();
        self.said |= is_due;
        is_due
    }

    /// It went well: whether that ends what was said.
    fn is_over(&mut self) -> bool {
        std::mem::take(&mut self.said)
    }
}

/// Runs a future on this thread, which sleeps while the future waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_waits_is_waited_for() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || block_on(receiver));
        sender.send(7).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_collector_that_comes_and_goes_is_named_once_a_minute() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut complaint = Complaint::default();
        assert!(!complaint.is_over());
        assert!(complaint.is_due(at(0)) && !complaint.is_due(at(100)), "said until it is over");
        assert!(complaint.is_over() && !complaint.is_over());
        assert!(complaint.is_due(at(101)) && complaint.is_over());
        assert!(!complaint.is_due(at(102)), "too soon");
        assert!(!complaint.is_over(), "what was not said does not end");
        assert!(complaint.is_due(at(161)));
    }
}
