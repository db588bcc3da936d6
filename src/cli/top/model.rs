//! What `top` knows of the proxy: the events of the feed as they are written, and the streams as they become.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::admin_views::{Canary, Failures, Lever, Levers, Limits};
use crate::telemetry::record::Phase;

/// Ended requests that are kept.
const ENDED_MAX: usize = 60;

/// Of those: so many that failed, that were refused, and of the others stay, whatever else comes.
const ENDED_SHARE: usize = 15;

/// Ticks and blocked stretches that are kept of a stream.
const TICKS_MAX: usize = 1_000;

/// Phases in the order of [`Phase::ALL`].
pub(super) type PhaseTimes = [f64; Phase::ALL.len()];

/// The event `streams`. Members that are not needed are left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Frame {
    /// Whose it is, in the view of a fleet.
    pub(super) replica: String,
    pub(super) running: u64,
    pub(super) not_shown: u64,
    facts: Vec<Identified>,
    rows: Vec<Row>,
    gone: Vec<u64>,
    ended: Vec<Ended>,
}

#[derive(Debug, Deserialize)]
struct Identified {
    id: u64,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: u64,
    age_ms: f64,
    phase: String,
    here_ms: f64,
    frames: u64,
    attempts: u64,
    phases_ms: Vec<f64>,
    #[serde(default)]
    ticks: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Ended {
    meaning: String,
    record: Facts,
}

/// What is known of a request, by the names of the access log.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    pub(super) replica: Option<String>,
    pub(super) timestamp: String,
    pub(super) request_id: String,
    pub(super) trace_id: String,
    pub(super) span_id: String,
    #[serde(rename = "http.request.method")]
    pub(super) method: String,
    #[serde(rename = "url.path")]
    pub(super) path: String,
    #[serde(rename = "user.id")]
    pub(super) user: Option<String>,
    pub(super) route: Option<String>,
    pub(super) upstream: Option<String>,
    #[serde(flatten)]
    pub(super) place: Place,
    #[serde(rename = "gen_ai.request.model")]
    pub(super) model: Option<String>,
    #[serde(rename = "http.response.status_code")]
    pub(super) status: Option<u16>,
    pub(super) dialect: Option<String>,
    pub(super) framing: Option<String>,
    pub(super) ttft_basis: Option<String>,
    pub(super) ttft_s: Option<f64>,
    pub(super) max_gap_s: Option<f64>,
    pub(super) tpot_s: Option<f64>,
    pub(super) duration_s: f64,
    pub(super) phases: BTreeMap<String, f64>,
    pub(super) frames: Option<u64>,
    #[serde(rename = "gen_ai.usage.input_tokens")]
    pub(super) input_tokens: Option<u64>,
    #[serde(rename = "gen_ai.usage.output_tokens")]
    pub(super) output_tokens: Option<u64>,
    pub(super) usage_source: Option<String>,
    pub(super) cost_usd: Option<f64>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) outcome: Option<String>,
    pub(super) error_type: Option<String>,
}

/// How a request ended, as floods are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Failed,
    Refused,
    Other,
}

impl Facts {
    fn kind(&self) -> Kind {
        match self.outcome.as_deref() {
            Some("rejected") => Kind::Refused,
            Some("completed" | "client_cancelled") | None => Kind::Other,
            Some(_) => Kind::Failed,
        }
    }
}

/// Which endpoint was asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    #[serde(rename = "server.address")]
    address: Option<String>,
    #[serde(rename = "server.port")]
    port: Option<u16>,
    #[serde(rename = "network.peer.address")]
    peer: Option<String>,
}

impl Place {
    /// `host:port`, and the address of a name behind it.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = self.address.clone()?;
        if let Some(port) = self.port {
            text = format!("{text}:{port}");
        }
        Some(match &self.peer {
            Some(peer) => format!("{text} ({peer})"),
            None => text,
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attempt {
    pub(super) upstream: String,
    #[serde(flatten)]
    pub(super) place: Place,
    pub(super) status: Option<u16>,
    pub(super) error_type: Option<String>,
    pub(super) duration_s: f64,
}

/// The event `overview`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Overview {
    pub(super) proxy: Proxy,
    pub(super) live: LiveOverview,
    #[serde(default)]
    pub(super) fleet: Fleet,
}

/// Who is of the fleet, where all of it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fleet {
    pub(super) replicas: Vec<Replica>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Replica {
    pub(super) replica: String,
    pub(super) admin: Option<String>,
    /// `None`: it was asked and has not answered yet.
    pub(super) answered: Option<bool>,
    pub(super) trouble: Option<String>,
    pub(super) absent_since: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Proxy {
    pub(super) draining: bool,
    pub(super) last_error: String,
    pub(super) listen: Vec<String>,
    pub(super) slow_gap_s: f64,
    pub(super) slow_first_token_s: f64,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) canaries: Vec<Canary>,
    pub(super) levers: Levers,
    pub(super) limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Upstream {
    #[serde(default)]
    pub(super) replica: Option<String>,
    pub(super) name: String,
    pub(super) endpoints: Vec<Endpoint>,
}

/// An endpoint, or one address of a name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    pub(super) endpoint: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) lever: Option<Lever>,
    pub(super) reason: Option<String>,
    pub(super) down_since: Option<String>,
    pub(super) serving_meanwhile: Option<Vec<String>>,
    pub(super) failures: Option<Failures>,
    pub(super) in_flight: u64,
    pub(super) measured: Measured,
    pub(super) each_address: Vec<Self>,
}

/// Of the last minutes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Measured {
    pub(super) attempts: u64,
    pub(super) failed: u64,
    pub(super) first_tokens: u64,
    pub(super) p50_s: Option<f64>,
    pub(super) p95_s: Option<f64>,
}

/// What the copies of a route's requests showed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mirror {
    pub(super) replica: Option<String>,
    pub(super) route: String,
    pub(super) variant: String,
    pub(super) same: u64,
    pub(super) differs: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) differences: BTreeMap<String, Failures>,
    pub(super) primary: Side,
    pub(super) shadow: Side,
}

/// Of the pairs in which both are known.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Side {
    pub(super) first_token_p50_s: Option<f64>,
    pub(super) output_tokens: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LiveOverview {
    pub(super) hints: Vec<Hint>,
    pub(super) first_tokens: Vec<FirstTokens>,
    pub(super) shadows: Vec<Mirror>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) failed: Vec<Facts>,
    pub(super) refused: Vec<Facts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    /// Whom it is about: an upstream, or a peer.
    pub(super) upstream: String,
    pub(super) peer: String,
    pub(super) streams: u64,
    pub(super) hint: String,
}

/// What fails, where, or who is refused what; how often, and since when.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    pub(super) replica: Option<String>,
    /// `failure` or `refusal`.
    pub(super) kind: String,
    pub(super) who: Option<String>,
    pub(super) what: String,
    pub(super) limit: Option<String>,
    pub(super) route: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) count: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct FirstTokens {
    #[serde(default)]
    pub(super) replica: Option<String>,
    pub(super) route: String,
    pub(super) upstream: String,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) p50_s: Option<f64>,
    pub(super) p95_s: Option<f64>,
    pub(super) p99_s: Option<f64>,
}

/// One request, running or ended. Times are in seconds since its head.
#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    pub(super) key: Key,
    pub(super) facts: Facts,
    /// When it began, by this machine's clock.
    pub(super) started: Option<Instant>,
    pub(super) age: f64,
    pub(super) phase: String,
    /// It is in that phase for so long.
    pub(super) here: f64,
    pub(super) phases: PhaseTimes,
    pub(super) frames: u64,
    pub(super) attempts: u64,
    pub(super) ticks: VecDeque<f64>,
    /// When the client took nothing.
    pub(super) blocked: VecDeque<(f64, f64)>,
    /// The connection to the proxy is gone: whether it still runs is not known.
    pub(super) lost: bool,
    /// Set once it has ended: what its numbers mean.
    pub(super) meaning: Option<String>,
}

/// What a row is found by, while it runs and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Running(u64),
    Ended(String),
}

impl Default for Key {
    fn default() -> Self {
        Self::Running(0)
    }
}

/// All streams that are known.
#[derive(Debug, Default)]
pub(super) struct Streams {
    live: HashMap<u64, Stream>,
    /// The newest last.
    ended: VecDeque<Stream>,
}

impl Streams {
    /// Takes over what one frame says, which came `now`.
    pub(super) fn take(&mut self, frame: Frame, now: Instant) {
        for Identified { id, facts } in frame.facts {
            self.live.entry(id).or_insert_with(|| Stream::begin(id)).facts = facts;
        }
        for row in frame.rows {
            self.live.entry(row.id).or_insert_with(|| Stream::begin(row.id)).go_on(row, now);
        }
        for Ended { meaning, record } in frame.ended {
            let seen = self.live.values().find(|stream| stream.facts.span_id == record.span_id).cloned();
            self.ended.push_back(Stream::ended(seen, record, Some(meaning)));
        }
        for id in frame.gone {
            self.live.remove(&id);
        }
        self.trim();
    }

    /// What is too much goes, the oldest first, but of no kind its share.
    fn trim(&mut self) {
        let mut surplus = self.ended.len().saturating_sub(ENDED_MAX);
        let mut left: HashMap<Kind, usize> = HashMap::new();
        self.ended.iter().for_each(|stream| *left.entry(stream.facts.kind()).or_default() += 1);
        self.ended.retain(|stream| {
            let Some(left) = left.get_mut(&stream.facts.kind()).filter(|left| surplus > 0 && **left > ENDED_SHARE)
            else {
                return true;
            };
            *left -= 1;
            surplus -= 1;
            false
        });
    }

    /// The connection to the proxy is gone: what ran may be over.
    pub(super) fn lose(&mut self) {
        self.live.values_mut().for_each(|stream| stream.lost = true);
    }

    /// Those that run, in this order, then those that ended, the newest first.
    pub(super) fn list(&self, order: Order, wanted: impl Fn(&Stream) -> bool) -> Vec<&Stream> {
        let mut live: Vec<(u64, &Stream)> = self.live.iter().map(|(id, stream)| (*id, stream)).collect();
        live.sort_by(|(a, one), (b, other)| match order {
            Order::Newest => earlier((b, other), (a, one)),
            Order::Longest => earlier((a, one), (b, other)),
            Order::Quietest => other.here.total_cmp(&one.here).then(a.cmp(b)),
        });
        live.into_iter().map(|(_, stream)| stream).chain(self.ended.iter().rev()).filter(|one| wanted(one)).collect()
    }

    /// A stream by its key; one that ran, by its record.
    pub(super) fn find(&self, key: &Key) -> Option<&Stream> {
        match key {
            Key::Running(id) => self.live.get(id),
            Key::Ended(span_id) => self.ended.iter().find(|stream| stream.facts.span_id == *span_id),
        }
    }

    /// What a stream that runs will be called when it has ended.
    pub(super) fn heir(&self, key: &Key) -> Option<Key> {
        let Key::Running(_) = key else { return None };
        self.find(key).map(|stream| Key::Ended(stream.facts.span_id.clone()))
    }
}

/// Of one replica numbers tell which came first. Those of several tell nothing of each other.
fn earlier((a, one): (&u64, &Stream), (b, other): (&u64, &Stream)) -> Ordering {
    match one.facts.replica {
        Some(_) => one.started.cmp(&other.started).then(a.cmp(b)),
        None => a.cmp(b),
    }
}

/// Which streams come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    Newest,
    #[default]
    Longest,
    Quietest,
}

impl Stream {
    fn begin(id: u64) -> Self {
        Self { key: Key::Running(id), ..Self::default() }
    }

    /// What ended, with what was seen of it while it ran.
    pub(super) fn ended(seen: Option<Self>, record: Facts, meaning: Option<String>) -> Self {
        let mut phases = PhaseTimes::default();
        for (slot, phase) in phases.iter_mut().zip(Phase::ALL) {
            *slot = record.phases.get(phase.as_str()).copied().unwrap_or_default();
        }
        Self {
            key: Key::Ended(record.span_id.clone()),
            age: record.duration_s,
            phase: String::new(),
            here: 0.0,
            phases,
            frames: record.frames.unwrap_or_default(),
            attempts: record.attempts.len() as u64,
            meaning: Some(meaning.unwrap_or_default()),
            facts: record,
            ..seen.unwrap_or_default()
        }
    }

    fn go_on(&mut self, row: Row, now: Instant) {
        let blocked = |phases: &[f64]| phases.get(Phase::ClientBlocked as usize).copied().unwrap_or_default();
        let age = row.age_ms / 1e3;
        let news = blocked(&row.phases_ms) / 1e3 - blocked(&self.phases);
        if news > (age - self.age) / 2.0 || row.phase == Phase::ClientBlocked.as_str() {
            match self.blocked.back_mut().filter(|(_, to)| *to >= self.age) {
                Some(last) => last.1 = age,
                None => self.blocked.push_back((age - news.max(0.0), age)),
            }
        }
        // A frame can only be late: the earliest guess is the best.
        let started = now.checked_sub(Duration::from_secs_f64(age.max(0.0)));
        self.started = self.started.min(started).or(started);
        self.age = age;
        self.phase = row.phase;
        self.here = row.here_ms / 1e3;
        self.frames = row.frames;
        self.attempts = row.attempts;
        for (slot, time) in self.phases.iter_mut().zip(row.phases_ms) {
            *slot = time / 1e3;
        }
        let mut at = 0;
        for step in row.ticks {
            at += step;
            self.ticks.push_back(at as f64 / 1e3);
        }
        let surplus = self.ticks.len().saturating_sub(TICKS_MAX);
        self.ticks.drain(..surplus);
        let surplus = self.blocked.len().saturating_sub(TICKS_MAX);
        self.blocked.drain(..surplus);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.meaning.is_some()
    }
}
