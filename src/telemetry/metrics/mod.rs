//! `/metrics`: what is counted and timed of each request. [`declarations`] declares it all; here it is fed and read.

mod bundle;
mod configured_names;
mod declarations;
mod endpoints;
pub(crate) mod family;
mod gap_histogram;
mod gen_ai_usage;
mod instruments;
pub mod labels;
mod mirror;
mod models;
mod process;
mod request;
pub(crate) mod series;
mod state;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use self::bundle::{Bundle, Bundles};
use self::configured_names::Known;
pub use self::configured_names::{EndpointOf, Names, TrafficShare};
use self::declarations::Families;
use self::endpoints::Endpoints;
use self::family::Declaration;
use self::gen_ai_usage::{Group, TOKENS_MAX, used};
pub use self::instruments::Instruments;
use self::labels::{
    AttemptResult, Commit, Direction, FailoverReason, LimitDecision, Model, NONE, Named, Operation, ReloadResult,
    Scope, Signal, Team, TokenType, Version,
};
pub use self::labels::{CheckResult, Full, HedgeResult, Received};
use self::models::Models;
use self::request::{Labels, Said};
use self::series::{AnyFamily as _, Gauge};
use super::attributes::operation;
use super::exposition::{Exposition, Format};
use super::queue::Dropped;
use super::record::{Cause, ErrorType, LimitInfo, LlmInfo, Phase, Record};
use crate::hashing::Map;
use crate::llm::price::{Bill, Cost};
use crate::llm::{StreamReading, Usage};

/// All metrics of the process.
pub struct Metrics {
    families: Families,
    bundles: Bundles,
    endpoints: Endpoints,
    models: Models,
    /// Bounded as models are: a token's claim can name any.
    teams: Models,
    /// Randomly keyed: who a client is must not tell which labels it shares.
    hasher: RandomState,
    /// Read while anything is written under names of the configuration, so that a reload's removal is final.
    known: RwLock<Known>,
    in_flight: RwLock<Map<Box<str>, Arc<Gauge>>>,
    /// What counts the same for an exporter, where there is one.
    instruments: Option<Instruments>,
    /// Counted where it happens; read when a scraper asks.
    dropped: Mutex<Vec<(Signal, Dropped)>>,
    /// As `dropped`: exports of metrics that failed.
    exports_failed: OnceLock<Dropped>,
}

/// What is fixed about each metric that there is.
pub(crate) fn declared() -> Vec<Declaration> {
    Families::new().all().map(|family| family.declaration().clone()).collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that begin at zero. What may alert on its rate is there from the start.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// As [`Metrics::new`]; `instruments` count too.
    pub fn with(instruments: Option<Instruments>) -> Self {
        let families = Families::new();
        families
            .build_info
            .get((Version(env!("CARGO_PKG_VERSION")), Commit(option_env!("STREAMGAUGE_COMMIT").unwrap_or("unknown"))))
            .set(1);
        families.config_last_success.get(()).set(unix_seconds());
        families.config_last_ok.get(()).set(1);
        for result in ReloadResult::ALL {
            families.config_reloads.get((result,));
        }
        families.websockets_in_flight.get(());
        families.admin_login_failures.get(());
        families.connections_open.get(());
        families.connections_opened.get(());
        for received in Received::ALL {
            families.late_heads.get((received,));
        }
        families.metric_exports_failed.get(());
        for full in [Full::All, Full::Address] {
            families.connections_refused.get((full,));
        }
        Self {
            families,
            bundles: Bundles::default(),
            endpoints: Endpoints::default(),
            models: Models::default(),
            teams: Models::default(),
            hasher: RandomState::new(),
            known: RwLock::default(),
            in_flight: RwLock::default(),
            instruments,
            dropped: Mutex::default(),
            exports_failed: OnceLock::new(),
        }
    }

    /// Counts one finished request.
    pub fn observe(&self, record: &Record) {
        let known = self.known.read();
        let (of, bundle) = (&self.families, self.bundle(record, &known));
        bundle.ended(of, record.outcome, record.status);
        for (phase, time) in record.phases.iter().filter(|(_, time)| !time.is_zero()) {
            if let Some(histogram) = bundle.phase(of, phase) {
                histogram.observe(time.as_secs_f64(), None);
            }
        }
        let own = record.phases.get(Phase::Admit) + record.phases.get(Phase::Proxy);
        // A shared store is not ours.
        let own = own.saturating_sub(record.limit.as_ref().map_or(Duration::ZERO, |limit| limit.waited));
        bundle.overhead(of).observe(own.as_secs_f64(), None);
        if let Some(instruments) = &self.instruments {
            instruments.request(record, bundle.attributes());
        }
        self.observe_attempts(record, &known, &bundle);
        self.endpoints.observe(of, record, &known);
        if let Some(limit) = &record.limit {
            self.observe_limit(limit, &known);
        }
        if let Some(llm) = &record.llm {
            self.observe_llm(record, llm, &known, &bundle);
        }
        if let Some(stream) = &record.stream {
            self.observe_stream(record, stream, &known);
        }
        if let Some(websocket) = &record.websocket {
            let route = known.route(record.route.as_deref().unwrap_or(NONE));
            of.websocket_messages.get((route, Direction::FromClient)).add(websocket.messages_in);
            of.websocket_messages.get((route, Direction::ToClient)).add(websocket.messages_out);
        }
    }

    /// Counts one response on a WebSocket: what it took and how fast it was. The connection is the request.
    pub fn observe_response(&self, record: &Record) {
        let known = self.known.read();
        let bundle = self.bundle(record, &known);
        if let Some(limit) = &record.limit {
            self.observe_limit(limit, &known);
        }
        if let Some(llm) = &record.llm {
            self.observe_llm(record, llm, &known, &bundle);
        }
    }

    /// Counts a request as being served until the guard goes.
    pub fn in_flight(&self, route: &str) -> InFlight {
        let names = self.known.read();
        let route = names.route(route);
        let known = self.in_flight.read().get(route.as_str()).cloned();
        InFlight::enter(known.unwrap_or_else(|| {
            let mut gauges = self.in_flight.write();
            let gauge = gauges.entry(route.as_str().into()).or_insert_with(|| self.families.in_flight.get((route,)));
            Arc::clone(gauge)
        }))
    }

    /// Counts a WebSocket as open until the guard goes.
    pub fn websocket_in_flight(&self) -> InFlight {
        InFlight::enter(self.families.websockets_in_flight.get(()))
    }

    /// Counts a client connection as let in, and as open until the guard goes.
    pub fn connection_open(&self) -> InFlight {
        self.families.connections_opened.get(()).add(1);
        InFlight::enter(self.families.connections_open.get(()))
    }

    /// Removes the series of all other routes, upstreams and variants: a reload took them away. A request that still runs
    /// under the old configuration is counted as of the route, upstream and variant `removed`.
    pub fn retain(&self, names: Names<'_>) {
        let mut known = self.known.write();
        *known = Known::only(names);
        let keep = |scope: Scope, value: &str| match scope {
            Scope::Route => known.route(value).as_str() == value,
            Scope::Upstream => known.upstream(value).as_str() == value,
            Scope::Variant => known.variant(value).as_str() == value,
            Scope::Limit => known.limit(value).as_str() == value,
            Scope::Model | Scope::Team | Scope::Constant => true,
        };
        for family in self.families.all() {
            family.retain(&keep);
        }
        self.in_flight.write().clear();
        self.bundles.clear();
    }

    /// Shows `dropped` as what was lost of `signal`.
    pub fn watch_dropped(&self, signal: &'static str, dropped: &Dropped) {
        self.dropped.lock().push((Signal(signal), dropped.clone()));
    }

    /// Shows `failed` as the exports of metrics that failed; the first that is handed in.
    pub fn watch_exports_failed(&self, failed: &Dropped) {
        let _ = self.exports_failed.set(failed.clone());
    }

    /// The answer to a scrape, with its content type, in the format that the `Accept` header asks for.
    pub fn encode(&self, accept: Option<&str>) -> (&'static str, String) {
        let format = Format::accepted(accept);
        let mut out = Exposition::new(format);
        for (signal, dropped) in self.dropped.lock().iter() {
            self.families.telemetry_dropped.get((*signal,)).set(dropped.get());
        }
        if let Some(failed) = self.exports_failed.get() {
            self.families.metric_exports_failed.get(()).set(failed.get());
        }
        for family in self.families.all() {
            family.write(&mut out);
        }
        process::write(&mut out);
        (format.content_type(), out.finish())
    }

    /// How many series there are now, those of the process left out.
    pub fn series(&self) -> usize {
        self.families.all().map(|family| family.len()).sum()
    }

    /// Answers whose cost nobody knows, by route, upstream and model.
    pub fn unpriced(&self) -> Vec<([Box<str>; 3], u64)> {
        self.families.unpriced.series().into_iter().map(|(labels, counter)| (labels, counter.count())).collect()
    }

    fn bundle(&self, record: &Record, known: &Known) -> Arc<Bundle> {
        let model = record.llm.as_ref().map(|llm| llm.request.model.as_deref().unwrap_or(NONE)).unwrap_or(NONE);
        let said = Said {
            route: record.route.as_deref().unwrap_or(NONE),
            upstream: record.served_by.as_ref().map_or(NONE, |served_by| &served_by.upstream),
            variant: record.served_by.as_ref().map_or(NONE, |served_by| &served_by.variant),
            model,
            operation: Operation(record.llm.as_ref().map_or(NONE, operation)),
            provider: record.llm.as_ref().and_then(LlmInfo::provider_name).unwrap_or(NONE),
        };
        // Only models that are labels have bundles, so nearly every request is through after one lookup.
        if let Some(bundle) = self.bundles.find(said) {
            if model != NONE {
                self.models.touch(model, record.started);
            }
            return bundle;
        }
        self.bundles.find_or_make(Labels {
            route: known.route(said.route),
            upstream: known.upstream(said.upstream),
            variant: known.variant(said.variant),
            model: if model == NONE { Named::NONE } else { self.model(model, record) },
            operation: said.operation,
            // A name of the configuration, or one of the dialects'.
            provider: Named::bounded(said.provider),
        })
    }

    fn observe_limit(&self, limit: &LimitInfo, known: &Known) {
        let decision = LimitDecision(limit.verdict.decision());
        let count = |name: &Arc<str>| self.families.limit_decisions.get((known.limit(name), decision)).add(1);
        match limit.verdict.denied_by() {
            None => limit.names.iter().for_each(count),
            Some(refusing) => count(refusing),
        }
    }

    /// The label of a model that a client asked for.
    fn model<'a>(&self, model: &'a str, record: &Record) -> Named<'a, Model> {
        let client = self.hasher.hash_one(models::who(&record.client));
        let named = self.models.label(model, record.answered(), client, record.started);
        if let Some(replaced) = named.replaced {
            self.forget(Scope::Model, &replaced);
        }
        Named::bounded(named.label)
    }

    /// The label of the team that asked. Teams come from keys and signed tokens: their number is bounded, and not who names them.
    fn team<'a>(&self, record: &'a Record) -> Named<'a, Team> {
        let Some(team) = record.client.team.as_deref() else { return Named::NONE };
        let named = self.teams.label(team, true, self.hasher.hash_one(team), record.started);
        if let Some(replaced) = named.replaced {
            self.forget(Scope::Team, &replaced);
        }
        Named::bounded(named.label)
    }

    /// Removes all series that have this name of `scope`.
    fn forget(&self, scope: Scope, value: &str) {
        let keep = |of: Scope, other: &str| of != scope || other != value;
        self.families.all().for_each(|family| family.retain(&keep));
        self.bundles.clear();
    }

    fn observe_attempts(&self, record: &Record, known: &Known, bundle: &Bundle) {
        let of = &self.families;
        let served_by = record.served_by.as_ref().map(|served_by| &*served_by.upstream);
        for attempt in &record.attempts {
            match attempt.error {
                None if served_by == Some(&attempt.upstream) => bundle.attempts_ok(of).add(1),
                error => of.attempts.get((known.upstream(&attempt.upstream), AttemptResult(error))).add(1),
            }
        }
        let pairs = record.attempts.iter().zip(record.attempts.iter().skip(1));
        for (replaced, next) in pairs.filter(|(_, next)| next.cause == Cause::Failover) {
            let (from, to) = (known.upstream(&replaced.upstream), known.upstream(&next.upstream));
            of.failovers.get((from.replaced(), to.replacing(), FailoverReason(replaced.error))).add(1);
        }
    }

    /// A stream of another kind is in no LLM's metric.
    fn observe_stream(&self, record: &Record, stream: &StreamReading, known: &Known) {
        let (of, route) = (&self.families, known.route(record.route.as_deref().unwrap_or(NONE)));
        let served_by = record.served_by.as_ref();
        let upstream = known.upstream(served_by.map_or(NONE, |served_by| &served_by.upstream));
        let variant = known.variant(served_by.map_or(NONE, |served_by| &served_by.variant));
        let exemplar = record.trace.sampled.then(|| (record.trace.trace_id, record.started + record.duration));
        if let Some(first) = stream.first_event {
            of.stream_first_event.get((route, upstream, variant)).observe(first.as_secs_f64(), exemplar);
        }
        if let Some(longest) = stream.max_gap {
            of.stream_gap.get((route, upstream, variant)).add(&stream.gaps, longest, exemplar);
        }
        let duration = of.stream_duration.get((route, upstream, variant, record.outcome));
        duration.observe(record.duration.as_secs_f64(), exemplar);
    }

    fn observe_llm(&self, record: &Record, llm: &LlmInfo, known: &Known, bundle: &Bundle) {
        if llm.is_fetched() {
            return self.observe_fetched(record, llm, known, bundle);
        }
        let (of, reading) = (&self.families, &llm.reading);
        let exemplar = record.trace.sampled.then(|| (record.trace.trace_id, record.started + record.duration));
        let time = |histogram: &series::Histogram, time: Option<Duration>| {
            if let Some(time) = time {
                histogram.observe(time.as_secs_f64(), exemplar);
            }
        };
        if let Some(histogram) = bundle.duration(of, record.error) {
            time(histogram, Some(record.duration));
        }
        if reading.first_byte.is_some() {
            time(bundle.first_byte(of), reading.first_byte);
        }
        if reading.first_token.is_some() {
            time(bundle.first_token(of), reading.first_token);
        }
        if reading.first_answer.is_some() {
            time(bundle.first_answer(of), reading.first_answer);
        }
        if let Some(pace) = llm.time_per_output_token() {
            time(bundle.per_token(of), Some(pace));
        }
        if let Some(longest) = reading.max_gap {
            bundle.token_gap(of).add(&reading.gaps, longest, exemplar);
        }
        if reading.buffered {
            bundle.buffered(of).add(1);
        }
        if reading.slow_gap_count > 0 {
            bundle.slow_gaps(of).add(u64::from(reading.slow_gap_count));
        }
        if let Some(instruments) = &self.instruments {
            instruments.call(record, llm, bundle.attributes());
        }
        self.observe_bill(record, llm, known, bundle);
    }

    /// An answer that was made before: how long it took to be handed out says nothing of the model, and what it took counts for
    /// who asked for it.
    fn observe_fetched(&self, record: &Record, llm: &LlmInfo, known: &Known, bundle: &Bundle) {
        let Some(by) = &llm.asked_by else { return self.observe_bill(record, llm, known, bundle) };
        let asked =
            Record { route: by.route.clone(), client: by.client.clone(), attempts: Vec::new(), ..record.clone() };
        self.observe_bill(&asked, llm, known, &self.bundle(&asked, known));
    }

    fn observe_bill(&self, record: &Record, llm: &LlmInfo, known: &Known, bundle: &Bundle) {
        self.observe_usage(record, llm, known, bundle);
        if let Some(instruments) = &self.instruments {
            instruments.usage(record, llm, bundle.attributes());
        }
        match llm.bill {
            Bill::Priced { cost, .. } => {
                let team = self.team(record);
                bundle.cost(&self.families, team).add(cost);
                if let Some(at_first) = record.cost_at_first {
                    self.observe_saved(record, known, at_first, cost);
                }
                if let Some(instruments) = &self.instruments {
                    instruments.cost(cost, team, bundle.attributes());
                }
            }
            Bill::Unpriced => bundle.unpriced(&self.families).add(1),
            Bill::Unknown => {}
        }
    }

    /// What routing by what a request is saved or cost, by the route that took it.
    fn observe_saved(&self, record: &Record, known: &Known, at_first: Cost, paid: Cost) {
        let route = known.route(record.route.as_deref().unwrap_or(NONE));
        let difference = Cost(at_first.nano_dollars().abs_diff(paid.nano_dollars()));
        let family = if at_first >= paid { &self.families.cost_saved } else { &self.families.cost_added };
        family.get((route,)).add(difference);
    }

    /// An attempt that lost a hedge has read the prompt too: about as many tokens as the winner.
    fn observe_lost_hedge(&self, record: &Record, bundle: &Bundle, known: &Known, prompt: u64) {
        for attempt in record.attempts.iter().filter(|attempt| attempt.error == Some(ErrorType::HedgeLost)) {
            bundle.tokens_at(&self.families, known.upstream(&attempt.upstream), TokenType::Input).add(prompt);
        }
    }

    fn observe_usage(&self, record: &Record, llm: &LlmInfo, known: &Known, bundle: &Bundle) {
        let (of, usage) = (&self.families, &llm.reading.usage);
        if let Some(counter) = bundle.llm_calls(of, llm.reading.usage_source) {
            counter.add(1);
        }
        let told = |count: Option<u64>| count.map(|count| count.min(TOKENS_MAX));
        for (kind, count) in [(TokenType::Input, told(usage.input)), (TokenType::Output, told(usage.output))] {
            let Some(count) = count else { continue };
            bundle.tokens(of, kind).add(count);
            bundle.token_usage(of, kind).observe(count as f64, None);
            if kind == TokenType::Input {
                self.observe_lost_hedge(record, bundle, known, count);
            }
        }
        if let Some(count) = told(usage.cached_input) {
            bundle.cache_read_tokens(of).add(count);
        }
        if let Some(count) = told(usage.cache_write) {
            bundle.cache_write_tokens(of).add(count);
        }
        if let Some(count) = told(usage.reasoning) {
            bundle.reasoning_tokens(of).add(count);
        }
        if Group::of(llm) == Group::Inference {
            self.observe_inference(record, usage, bundle);
        }
    }

    /// By the conventions each inference is counted, a failed one too, with 0 where nobody told what it took.
    fn observe_inference(&self, record: &Record, usage: &Usage, bundle: &Bundle) {
        let of = &self.families;
        for (counter, modality, count) in used(usage) {
            if let Some(counter) = bundle.used(of, counter, modality) {
                counter.add(count);
            }
        }
        for (output, count) in [(false, usage.input), (true, usage.output)] {
            bundle.operation_tokens(of, output, record.error).observe(gen_ai_usage::tokens(count) as f64, None);
        }
    }
}

/// Something that is counted while it lasts.
#[must_use = "dropped at once, it counts nothing"]
pub struct InFlight(Arc<Gauge>);

impl InFlight {
    fn enter(gauge: Arc<Gauge>) -> Self {
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
