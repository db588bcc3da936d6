//! Books the usage of responses that are made in the background: once, when their end is first seen, for who asked for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::reservation::Reservation;
use crate::llm::price::Cost;
use crate::llm::{self, Reading, RequestFacts, Usage, UsageSource};
use crate::policy::background_responses::{Background, Left, Seen};
use crate::telemetry::event::Event;
use crate::telemetry::record::{AskedBy, Outcome};

/// The responses that are made in the background. Outlives reloads.
pub(crate) struct BackgroundBook {
    responses: Mutex<Background<Arc<AskedBy>, Reservation>>,
    began: Instant,
}

/// Whose usage it is that an answer tells.
pub(crate) enum Booking {
    /// Of the request that it answers.
    Own,
    /// Nobody's yet: the response runs on.
    Pending,
    /// It was booked before, or is by the answer to who asked for it.
    Delivery,
    /// Of another request, which still held so much.
    Of(Arc<AskedBy>, Option<Box<Reservation>>),
}

impl Default for BackgroundBook {
    fn default() -> Self {
        Self { responses: Mutex::default(), began: Instant::now() }
    }
}

impl BackgroundBook {
    /// Whose usage an answer of `upstream` to `request` tells. Where it is to be booked with it, it is booked from now on; where
    /// not, `reading` tells none any more.
    pub(crate) fn booking(&self, upstream: &str, request: &RequestFacts, reading: &mut Reading) -> Booking {
        let booking = self.look(upstream, request, reading);
        let source = match booking {
            Booking::Own | Booking::Of(..) => return booking,
            Booking::Pending => UsageSource::Pending,
            Booking::Delivery => UsageSource::Delivery,
        };
        (reading.usage, reading.usage_source) = (Usage::default(), source);
        booking
    }

    fn look(&self, upstream: &str, request: &RequestFacts, reading: &Reading) -> Booking {
        let id = reading.response_id.as_deref();
        match (request.retrieves(), reading.background) {
            (false, llm::Background::No) => Booking::Own,
            (_, llm::Background::Running) => Booking::Pending,
            (false, llm::Background::Ended) => {
                let Some(id) = id else { return Booking::Own };
                let mut responses = self.responses.lock();
                let key = responses.key(upstream, id);
                if request.is_llm() {
                    responses.book(key);
                    return Booking::Own;
                }
                // It asked no model: it changed something of an answer that another had asked for.
                match responses.ended(key) {
                    Seen::First(by, hold) => Booking::Of(by, hold.map(Box::new)),
                    Seen::Again => Booking::Delivery,
                    Seen::Unknown => {
                        responses.book(key);
                        Booking::Own
                    }
                }
            }
            (true, state) => {
                let Some(id) = id else { return Booking::Delivery };
                let mut responses = self.responses.lock();
                let key = responses.key(upstream, id);
                match responses.ended(key) {
                    Seen::First(by, hold) => Booking::Of(by, hold.map(Box::new)),
                    // Asked for by a request that went elsewhere, or was forgotten: who sees the end first pays.
                    // So does who has one go on that is known for none in the background.
                    Seen::Unknown
                        if (state == llm::Background::Ended || request.continues()) && reading.usage.is_known() =>
                    {
                        responses.book(key);
                        Booking::Own
                    }
                    Seen::Again | Seen::Unknown => Booking::Delivery,
                }
            }
        }
    }

    /// The response that `upstream` calls `id` runs on: what its request holds waits for its end.
    pub(crate) fn runs(&self, upstream: &str, id: Option<&str>, by: AskedBy, hold: Option<Reservation>) {
        let Some(id) = id else {
            // Nobody will find it again.
            hold.into_iter().for_each(Reservation::give_up);
            return;
        };
        let now = self.now();
        let mut responses = self.responses.lock();
        let key = responses.key(upstream, id);
        let left = responses.runs(key, Arc::new(by), hold, now);
        drop(responses);
        match left {
            Left::GivenUp(hold) => hold.give_up(),
            // Whoever saw its end has paid.
            Left::Nothing | Left::Over(_) => {}
        }
    }

    /// Gives up what was held for too long. To be called now and then.
    pub(crate) fn sweep(&self) {
        let lost = self.responses.lock().give_up(self.now());
        lost.into_iter().for_each(Reservation::give_up);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Settles what a request held whose response has ended.
pub(crate) fn settle(mut hold: Reservation, reading: &Reading, cost: Option<Cost>) {
    hold.read(reading, cost);
    hold.apply(&Event::Ended(Outcome::Completed, None));
}
