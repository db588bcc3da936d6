//! A bounded queue with a thread behind it: requests hand things over in well under a microsecond and never wait for a
//! slow disk, terminal or collector. What does not fit is dropped and counted.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How a [`Queue`] gathers its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Most items that wait; at most as many again are in the handler's hands.
    pub(crate) capacity: usize,
    /// A batch this large is handled at once.
    pub(crate) batch: usize,
    /// How long the first item of a smaller batch waits for others: the thread wakes once a batch, not once an item.
    pub(crate) linger: Duration,
}

/// How many things were lost, as a counter to share.
#[derive(Debug, Clone, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The sending end. Clones share one queue; the thread ends when [`Queue::close`] is called or the last clone goes.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    shared: Arc<Shared<T>>,
    /// Lets the thread know when the last sender is gone.
    _alive: Arc<Alive<T>>,
    dropped: Dropped,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _alive: Arc::clone(&self._alive), dropped: self.dropped.clone() }
    }
}

impl<T: Send + 'static> Queue<T> {
    /// Starts the thread `name`, which gives each batch to `handle` in order. `prepare` makes the handler on that thread, which
    /// counts what it loses itself.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn spawn<H: FnMut(&mut Vec<T>)>(
        name: &str,
        pace: Pace,
        prepare: impl FnOnce(Dropped) -> H + Send + 'static,
    ) -> io::Result<Self> {
        let state = State { waiting: Vec::new(), pushed: 0, handled: 0, idle: false, hurry: false, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), pace, wake: Condvar::new(), done: Condvar::new() });
        let (theirs, dropped) = (Arc::clone(&shared), Dropped::default());
        let lost = dropped.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut handle = prepare(lost);
            theirs.work(&mut handle);
        })?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared, dropped })
    }

    /// Hands `item` over, or back when the queue is full or closed. Never waits for the handler.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.shared.state.lock();
        if state.closed || state.waiting.len() >= self.shared.pace.capacity {
            return Err(item);
        }
        state.waiting.push(item);
        state.pushed += 1;
        let wake = state.idle || state.waiting.len() == self.shared.pace.batch;
        state.idle = false;
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Hands `item` over; it is dropped and counted when the queue is full or closed.
    pub(crate) fn send(&self, item: T) {
        if self.push(item).is_err() {
            self.dropped.add(1);
        }
    }

    /// What was lost.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// Waits until all that was pushed before is handled, at most for `timeout`; tells whether it was.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        let goal = state.pushed;
        while state.handled < goal {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            state.hurry = true;
            self.shared.wake.notify_one();
            self.shared.done.wait_for(&mut state, left);
        }
        true
    }

    /// Takes nothing more; the thread handles what waits and ends.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    pace: Pace,
    wake: Condvar,
    done: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// Accepted so far.
    pushed: u64,
    /// Given to the handler and done, so far.
    handled: u64,
    /// The thread sleeps until there is something.
    idle: bool,
    /// Somebody waits for a flush: no lingering.
    hurry: bool,
    closed: bool,
}

impl<T> Shared<T> {
    fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    fn work(&self, handle: &mut impl FnMut(&mut Vec<T>)) {
        let mut batch = Vec::new();
        while self.next(&mut batch) {
            let count = batch.len() as u64;
            // A handler that panics loses its batch, not the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| handle(&mut batch)));
            batch.clear();
            self.state.lock().handled += count;
            self.done.notify_all();
        }
    }

    /// Waits for a batch; `false` when there will be none.
    fn next(&self, batch: &mut Vec<T>) -> bool {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            state.idle = true;
            self.wake.wait(&mut state);
        }
        state.idle = false;
        let gather = |state: &mut State<T>| !state.hurry && !state.closed && state.waiting.len() < self.pace.batch;
        self.wake.wait_while_for(&mut state, gather, self.pace.linger);
        state.hurry = false;
        std::mem::swap(&mut state.waiting, batch);
        true
    }
}

#[derive(Debug)]
struct Alive<T>(Arc<Shared<T>>);

impl<T> Drop for Alive<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn pace(capacity: usize) -> Pace {
        Pace { capacity, batch: 64, linger: Duration::ZERO }
    }

    #[test]
    fn everything_arrives_in_order() {
        let (seen, arrived) = mpsc::channel();
        let queue = Queue::spawn("test", pace(100_000), |_| {
            move |batch: &mut Vec<u32>| batch.drain(..).for_each(|item| seen.send(item).unwrap())
        });
        let queue = queue.unwrap();
        for item in 0..10_000 {
            queue.push(item).unwrap();
        }
        assert!(queue.flush(LONG));
        assert_eq!(arrived.try_iter().collect::<Vec<_>>(), (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_stuck_handler_fills_the_queue_and_stops_nobody() {
        let (release, stuck) = mpsc::channel::<()>();
        let (entered, inside) = mpsc::channel();
        let queue = Queue::spawn("test", pace(10), |_| {
            move |_: &mut Vec<u32>| {
                entered.send(()).unwrap();
                let _ = stuck.recv();
            }
        });
        let queue = queue.unwrap();
        queue.push(0).unwrap();
        inside.recv_timeout(LONG).unwrap();
        let accepted = (0..100).filter(|item| queue.push(*item).is_ok()).count();
        assert_eq!(accepted, 10);
        assert!(!queue.flush(Duration::from_millis(20)), "nothing was handled");
        drop(release);
        assert!(queue.flush(LONG));
    }

    #[test]
    fn a_flush_does_not_wait_for_the_linger() {
        let slow = Pace { capacity: 10, batch: 10, linger: Duration::from_secs(3600) };
        let queue = Queue::spawn("test", slow, |_| |_: &mut Vec<u32>| {}).unwrap();
        queue.push(1).unwrap();
        assert!(queue.flush(LONG));
    }

    #[test]
    fn a_full_batch_does_not_wait_for_the_linger() {
        let slow = Pace { capacity: 10, batch: 3, linger: Duration::from_secs(3600) };
        let (seen, arrived) = mpsc::channel();
        let queue =
            Queue::spawn("test", slow, |_| move |batch: &mut Vec<u32>| seen.send(batch.len()).unwrap()).unwrap();
        for item in 0..3 {
            queue.push(item).unwrap();
        }
        assert_eq!(arrived.recv_timeout(LONG), Ok(3));
    }

    #[test]
    fn a_panic_costs_one_batch() {
        let (seen, arrived) = mpsc::channel();
        let queue = Queue::spawn("test", pace(10), |_| {
            move |batch: &mut Vec<u32>| {
                assert!(batch != &[13], "on purpose");
                seen.send(batch.clone()).unwrap();
            }
        });
        let queue = queue.unwrap();
        queue.push(13).unwrap();
        assert!(queue.flush(LONG));
        queue.push(7).unwrap();
        assert!(queue.flush(LONG));
        assert_eq!(arrived.try_iter().collect::<Vec<_>>(), [vec![7]]);
    }

    #[test]
    fn what_waits_at_the_close_is_handled_and_nothing_after_it() {
        let slow = Pace { capacity: 10, batch: 10, linger: Duration::from_secs(3600) };
        let (seen, arrived) = mpsc::channel();
        let queue =
            Queue::spawn("test", slow, |_| move |batch: &mut Vec<u32>| seen.send(batch.clone()).unwrap()).unwrap();
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(2));
        assert_eq!(arrived.recv_timeout(LONG), Ok(vec![1]));
        assert!(arrived.recv_timeout(LONG).is_err(), "the thread has ended and dropped its handler");
    }

    #[test]
    fn the_thread_ends_with_the_last_sender() {
        let (seen, arrived) = mpsc::channel::<()>();
        let queue = Queue::spawn("test", pace(10), |_| {
            move |_: &mut Vec<u32>| {
                let _ = &seen;
            }
        });
        let queue = queue.unwrap();
        drop(queue.clone());
        queue.push(1).unwrap();
        drop(queue);
        assert_eq!(arrived.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
