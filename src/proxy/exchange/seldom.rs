//! A future that is polled only when it has woken. A task wakes for each event of a stream: what comes once in a stream's life, if
//! at all, is not asked each time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// In a box: a task has the size of its largest moment, and keeps it.
pub(super) struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// Of `bell`: what `future` is polled with.
    waker: Waker,
    /// Whom `bell` wakes.
    task: Option<Waker>,
}

struct Bell {
    rang: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        // Not taken: the task registers only once.
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }
}

impl<F: Future> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        // The first look is due.
        let bell = Arc::new(Bell { rang: AtomicBool::new(true), task: Mutex::default() });
        Self { future: Box::pin(future), waker: Waker::from(Arc::clone(&bell)), bell, task: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            this.task = Some(context.waker().clone());
            this.bell.task.lock().clone_from(&this.task);
        }
        // After the task is registered: a ring in between is not missed.
        if !this.bell.rang.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.rang.swap(false, Ordering::AcqRel);
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Counter>, Waker) {
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        (Arc::clone(&counter), Waker::from(counter))
    }

    #[test]
    fn is_polled_once_for_each_time_it_woke() {
        let (polls, inner) = (AtomicUsize::new(0), Mutex::new(None::<Waker>));
        let mut seldom = Seldom::new(poll_fn(|context| {
            *inner.lock() = Some(context.waker().clone());
            if polls.fetch_add(1, Ordering::Relaxed) < 2 { Poll::Pending } else { Poll::Ready(7) }
        }));
        let (woken, waker) = task();
        let mut context = Context::from_waker(&waker);
        let mut poll = |context: &mut Context<'_>| Pin::new(&mut seldom).poll(context);
        for _ in 0..5 {
            assert_eq!(poll(&mut context), Poll::Pending);
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1, "it had not woken");
        inner.lock().take().unwrap().wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut context), Poll::Pending);
        assert_eq!(poll(&mut context), Poll::Pending);
        assert_eq!(polls.load(Ordering::Relaxed), 2);
        inner.lock().take().unwrap().wake();
        assert_eq!(poll(&mut context), Poll::Ready(7));
    }

    #[test]
    fn wakes_the_task_that_asked_last() {
        let inner = Mutex::new(None::<Waker>);
        let mut seldom = Seldom::new(poll_fn(|context| {
            *inner.lock() = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        let ((first, first_waker), (second, second_waker)) = (task(), task());
        for waker in [&first_waker, &second_waker] {
            assert_eq!(Pin::new(&mut seldom).poll(&mut Context::from_waker(waker)), Poll::Pending);
        }
        inner.lock().take().unwrap().wake();
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
    }
}
