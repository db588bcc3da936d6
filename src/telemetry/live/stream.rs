//! One running request: its stages write it, viewers read it.
//!
//! A chunk costs two stores of the current phase, and one load that tells whether there is a viewer. The sums of phases
//! and the times of tokens are recorded only while there is one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::token_times::Ticks;
use crate::llm::{Dialect, Framing, RequestFacts};
use crate::telemetry::event::{AttemptEvent, Event};
use crate::telemetry::json::{self, Json};
use crate::telemetry::record::{ClientInfo, Phase, Phases, ServerAddress, Stopwatch, TraceIds};

/// Longest text of a row, in bytes.
const TEXT_MAX: usize = 200;

/// The time part of a phase and its beginning, packed: 2^56 µs are two thousand years.
const TIME_BITS: u32 = 56;

/// How many look. Each chunk reads it, so it stands apart from the count of streams that share it, which each request changes.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Viewers(pub(super) AtomicUsize);

/// The requests that run.
#[derive(Default)]
pub(super) struct Running {
    /// The number of the next one.
    pub(super) next: u64,
    /// In the order they came.
    pub(super) streams: BTreeMap<u64, Arc<Stream>>,
}

/// One running request, for its stages to tell how far it is.
pub struct LiveStream {
    stream: Arc<Stream>,
    running: Arc<Mutex<Running>>,
}

/// A request's attempts tell by this how far they are.
#[derive(Clone)]
pub struct Follower(Arc<Stream>);

impl LiveStream {
    pub(super) fn new(stream: Arc<Stream>, running: Arc<Mutex<Running>>) -> Self {
        Self { stream, running }
    }

    /// Shows what `event` tells. Inlined, with one arm left of it: each stage tells an event that it names.
    #[inline(always)]
    pub fn apply(&self, event: &Event<'_>) {
        let stream = &self.stream;
        match event {
            Event::Identified { request_id, trace, client } => stream.note(|facts| {
                facts.request_id = Some(Arc::clone(request_id));
                facts.trace = Some(*trace);
                facts.user.clone_from(&client.user);
            }),
            Event::Authenticated(ClientInfo { user: user @ Some(_), .. }) => {
                stream.note(|facts| facts.user.clone_from(user));
            }
            Event::Requested(RequestFacts { model: Some(model), .. }) => {
                stream.note(|facts| facts.model = Some(model.as_str().into()));
            }
            Event::Routed { route, target } => stream.note(|facts| {
                facts.route = Some(Arc::clone(route));
                facts.served_by = target.map(|(upstream, variant)| (Arc::clone(upstream), Arc::clone(variant)));
            }),
            Event::PassedOn { upstream, variant, .. } => {
                stream.note(|facts| facts.served_by = Some((Arc::clone(upstream), Arc::clone(variant))));
            }
            Event::Recognised(speaks) => stream.note(|facts| facts.speaks = *speaks),
            Event::OtherStream(other) => {
                stream.other.store(*other, Relaxed);
                stream.version.fetch_add(1, Relaxed);
            }
            Event::StatusSent(status) => {
                stream.status.store(*status, Relaxed);
                stream.version.fetch_add(1, Relaxed);
            }
            Event::FirstToken(after) => {
                stream.first_token_us.store(micros(*after), Relaxed);
                stream.version.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }

    /// How much has passed so far, in all; `token` is when a token frame ended with it.
    pub fn progress(&self, frames: u64, bytes_out: u64, token: Option<Duration>) {
        self.stream.frames.store(frames, Relaxed);
        self.stream.bytes_out.store(bytes_out, Relaxed);
        if let Some(at) = token
            && self.stream.is_watched()
        {
            self.stream.ticks.get_or_init(Box::default).push(at);
        }
    }

    /// It enters `phase` now; `stopwatch` has the phases before.
    pub fn entered(&self, phase: Phase, now: Duration, stopwatch: &Stopwatch) {
        // Our own work takes microseconds: nobody could see it as what is going on.
        if phase != Phase::Proxy {
            self.stream.stand(phase, now);
        }
        if self.stream.is_watched() {
            self.stream.book(stopwatch.booked());
        }
    }

    /// As [`LiveStream::entered`], where time does not matter: the sums are kept whether anybody looks or not.
    pub fn entered_for_long(&self, stopwatch: &Stopwatch, now: Duration) {
        self.stream.stand(stopwatch.current(), now);
        self.stream.book(stopwatch.booked());
    }

    /// For the attempts.
    pub fn follower(&self) -> Follower {
        Follower(Arc::clone(&self.stream))
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        // Freed outside the lock.
        let gone = self.running.lock().streams.remove(&self.stream.number);
        drop(gone);
    }
}

impl Follower {
    /// One more attempt begins. What the one before took was in vain, or is waited for beside it.
    pub fn attempt(&self, place: &ServerAddress, now: Duration) {
        let stream = &self.0;
        stream.note(|facts| facts.place = Some(place.clone()));
        stream.pass_to(Phase::Connect, now);
        if stream.attempts.fetch_add(1, Relaxed) > 0 {
            let of_attempts = [Phase::Connect, Phase::UpstreamWait, Phase::Preamble];
            let slots = of_attempts.iter().filter_map(|phase| stream.spent_us.get(*phase as usize));
            let lost = slots.map(|slot| slot.swap(0, Relaxed)).sum();
            if let Some(slot) = stream.spent_us.get(Phase::FailedAttempts as usize) {
                slot.fetch_add(lost, Relaxed);
            }
        }
    }

    /// Shows what happened to an attempt at `now`.
    pub fn apply(&self, event: &AttemptEvent<'_>, now: Duration) {
        let phase = match event {
            AttemptEvent::Moved(place) => return self.0.note(|facts| facts.place = Some((*place).clone())),
            AttemptEvent::Connected { .. } => Phase::UpstreamWait,
            AttemptEvent::Answered(_) => Phase::Preamble,
            AttemptEvent::Failed(_) => Phase::FailedAttempts,
            _ => return,
        };
        self.0.pass_to(phase, now);
    }
}

/// The facts of a request, as they become known.
#[derive(Default, Clone)]
struct Facts {
    request_id: Option<Arc<str>>,
    trace: Option<TraceIds>,
    user: Option<Arc<str>>,
    route: Option<Arc<str>>,
    model: Option<Box<str>>,
    served_by: Option<(Arc<str>, Arc<str>)>,
    /// The endpoint that was asked last.
    place: Option<ServerAddress>,
    speaks: Option<(Dialect, Framing)>,
}

pub(super) struct Stream {
    pub(super) number: u64,
    started: SystemTime,
    clock: Instant,
    method: Arc<str>,
    path: Arc<str>,
    facts: Mutex<Facts>,
    /// Counts what became known.
    version: AtomicU32,
    /// Its answer is a stream that is no LLM's.
    other: AtomicBool,
    /// Zero: none yet.
    status: AtomicU16,
    /// The greatest number: none yet.
    first_token_us: AtomicU64,
    frames: AtomicU64,
    bytes_out: AtomicU64,
    attempts: AtomicU16,
    /// The phase it is in, and since when.
    standing: AtomicU64,
    /// What was spent on each phase before that.
    spent_us: [AtomicU64; Phase::ALL.len()],
    /// Kept while somebody looks.
    ticks: OnceLock<Box<Ticks>>,
    viewers: Arc<Viewers>,
}

/// How far a stream is, as one look saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    /// It is in that phase for so long.
    pub(super) here: Duration,
    pub(super) age: Duration,
}

impl Stream {
    pub(super) fn new(number: u64, method: &Arc<str>, path: &Arc<str>, viewers: Arc<Viewers>) -> Self {
        Self {
            number,
            started: SystemTime::now(),
            clock: Instant::now(),
            method: Arc::clone(method),
            path: Arc::clone(path),
            facts: Mutex::default(),
            version: AtomicU32::new(1),
            other: AtomicBool::new(false),
            status: AtomicU16::new(0),
            first_token_us: AtomicU64::new(u64::MAX),
            frames: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            attempts: AtomicU16::new(0),
            standing: AtomicU64::new(pack(Phase::Admit, Duration::ZERO)),
            spent_us: Default::default(),
            ticks: OnceLock::new(),
            viewers,
        }
    }

    fn is_watched(&self) -> bool {
        self.viewers.0.load(Relaxed) > 0
    }

    fn note(&self, write: impl FnOnce(&mut Facts)) {
        write(&mut self.facts.lock());
        self.version.fetch_add(1, Relaxed);
    }

    fn stand(&self, phase: Phase, now: Duration) {
        self.standing.store(pack(phase, now), Relaxed);
    }

    /// Goes on to `phase`, and books the time until now itself.
    fn pass_to(&self, phase: Phase, now: Duration) {
        let (before, since) = unpack(self.standing.load(Relaxed));
        if let Some(slot) = self.spent_us.get(before as usize) {
            slot.fetch_add(micros(now.saturating_sub(since)), Relaxed);
        }
        self.stand(phase, now);
    }

    fn book(&self, phases: &Phases) {
        for ((_, time), slot) in phases.iter().zip(&self.spent_us) {
            slot.store(micros(time), Relaxed);
        }
    }

    /// Changes with each fact that becomes known.
    pub(super) fn version(&self) -> u32 {
        self.version.load(Relaxed)
    }

    /// Identifies the request among those that ended.
    pub(super) fn span_id(&self) -> Option<u64> {
        self.facts.lock().trace.map(|trace| trace.span_id)
    }

    pub(super) fn standing(&self) -> Standing {
        let (phase, since) = unpack(self.standing.load(Relaxed));
        let age = self.clock.elapsed();
        Standing { phase, here: age.saturating_sub(since), age }
    }

    /// The row of `/api/streams`.
    pub(super) fn render(&self, out: &mut String) {
        let mut row = Json::object(out);
        self.render_known(&mut row, usize::MAX);
        row.seconds("duration_s", self.clock.elapsed());
        row.number("frames", self.frames.load(Relaxed));
        row.number("bytes_out", self.bytes_out.load(Relaxed));
        row.end();
    }

    /// What seldom changes, for a viewer that does not know it yet.
    pub(super) fn render_facts(&self, out: &mut String) {
        let mut row = Json::object(out);
        row.number("id", self.number);
        self.render_known(&mut row, TEXT_MAX);
        row.end();
    }

    /// What is known, with the names of the access log; no text is longer than `text_max`, in bytes.
    fn render_known(&self, row: &mut Json<'_>, text_max: usize) {
        let facts = self.facts.lock().clone();
        row.time("timestamp", self.started);
        let mut text = |key, value: Option<&str>| row.text_if(key, value.map(|text| json::bounded(text, text_max).0));
        text("request_id", facts.request_id.as_deref());
        text("http.request.method", Some(&self.method));
        text("url.path", Some(&self.path));
        text("user.id", facts.user.as_deref());
        text("route", facts.route.as_deref());
        text("upstream", facts.served_by.as_ref().map(|(upstream, _)| &**upstream));
        text("variant", facts.served_by.as_ref().map(|(_, variant)| &**variant));
        text("gen_ai.request.model", facts.model.as_deref());
        text("kind", self.other.load(Relaxed).then_some("stream"));
        if let Some(place) = &facts.place {
            place.render(row);
        }
        if let Some(trace) = facts.trace {
            row.text("trace_id", &format!("{:032x}", trace.trace_id));
            row.text("span_id", &format!("{:016x}", trace.span_id));
        }
        if let Some((dialect, framing)) = facts.speaks {
            row.text("dialect", dialect.as_str());
            row.text("framing", framing.as_str());
        }
        row.number_if("http.response.status_code", self.status_code());
        row.seconds_if("ttft_s", self.ttft());
    }

    /// How far it is: age, phase, times and counts, and the ticks after the first `seen`. Returns how many there are now.
    pub(super) fn render_progress(&self, seen: u32, out: &mut String) -> u32 {
        let Standing { phase, here, age } = self.standing();
        let mut row = Json::object(out);
        row.number("id", self.number);
        row.number("age_ms", millis(age));
        row.text("phase", phase.as_str());
        row.number("here_ms", millis(here));
        row.number("frames", self.frames.load(Relaxed));
        row.number("bytes_out", self.bytes_out.load(Relaxed));
        row.number("attempts", u64::from(self.attempts.load(Relaxed)));
        let mut spent = row.array("phases_ms");
        for time in self.spent(phase, here, age) {
            spent.element_raw(|out| json::integer(out, time / 1_000));
        }
        spent.end();
        let count = self.ticks.get().map_or(seen, |ticks| ticks.render(seen, &mut row));
        row.end();
        count
    }

    /// Microseconds by phase. What nobody booked, because nobody looked, lies between the first token and now.
    fn spent(&self, phase: Phase, here: Duration, age: Duration) -> [u64; Phase::ALL.len()] {
        let mut spent = [0; Phase::ALL.len()];
        for (slot, booked) in spent.iter_mut().zip(&self.spent_us) {
            *slot = booked.load(Relaxed);
        }
        let unbooked = micros(age.saturating_sub(here)).saturating_sub(spent.iter().sum());
        for (phase, time) in [(Phase::Generation, unbooked), (phase, micros(here))] {
            if let Some(slot) = spent.get_mut(phase as usize) {
                *slot += time;
            }
        }
        spent
    }

    fn status_code(&self) -> Option<u64> {
        Some(self.status.load(Relaxed)).filter(|status| *status != 0).map(u64::from)
    }

    fn ttft(&self) -> Option<Duration> {
        Some(self.first_token_us.load(Relaxed)).filter(|time| *time != u64::MAX).map(Duration::from_micros)
    }
}

fn pack(phase: Phase, since: Duration) -> u64 {
    (phase as u64) << TIME_BITS | micros(since) & ((1 << TIME_BITS) - 1)
}

fn unpack(standing: u64) -> (Phase, Duration) {
    let phase = Phase::ALL.get((standing >> TIME_BITS) as usize).copied().unwrap_or(Phase::Proxy);
    (phase, Duration::from_micros(standing & ((1 << TIME_BITS) - 1)))
}

fn micros(time: Duration) -> u64 {
    // Not by way of 128 bits: this runs for each chunk.
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

fn millis(time: Duration) -> u64 {
    micros(time) / 1_000
}
