//! Metrics by endpoint, in families of their own: as a label of the other metrics the endpoint would multiply their
//! series.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::configured_names::{EndpointOf, Known};
use super::declarations::Families;
use super::labels::{AttemptResult, CheckResult, Endpoint, Kept, Named, Upstream};
use super::series::{Counter, Histogram};
use crate::hashing::Map;
use crate::telemetry::record::{ErrorType, Record};

/// Endpoints that have series of their own; those beyond share the name `other`.
const ENDPOINTS_MAX: usize = 500;
const OTHER: Named<'static, Endpoint> = Named::bounded("other");

/// The handles of all endpoints that the configuration names, by upstream and endpoint.
#[derive(Default)]
pub(super) struct Endpoints(RwLock<Map<Box<str>, OfUpstream>>);

/// By endpoint.
type OfUpstream = Map<Box<str>, Arc<Handles>>;

/// The series of one endpoint, each made when the first value for it comes.
struct Handles {
    upstream: Kept<Upstream>,
    endpoint: Kept<Endpoint>,
    first_token: OnceLock<Arc<Histogram>>,
    duration: OnceLock<Arc<Histogram>>,
    health_checks: [OnceLock<Arc<Counter>>; CheckResult::ALL.len()],
    /// By error; the last is success.
    attempts: [OnceLock<Arc<Counter>>; ErrorType::ALL.len() + 1],
}

impl Handles {
    fn new(upstream: Named<'_, Upstream>, endpoint: Named<'_, Endpoint>) -> Self {
        Self {
            upstream: upstream.keep(),
            endpoint: endpoint.keep(),
            first_token: OnceLock::new(),
            duration: OnceLock::new(),
            health_checks: [const { OnceLock::new() }; _],
            attempts: [const { OnceLock::new() }; _],
        }
    }

    fn labels(&self) -> (Named<'_, Upstream>, Named<'_, Endpoint>) {
        (self.upstream.name(), self.endpoint.name())
    }

    /// All results are there from the first check on: a rate needs a zero before the first failure.
    fn checked(&self, of: &Families, result: CheckResult) {
        let (upstream, endpoint) = self.labels();
        for (slot, each) in self.health_checks.iter().zip(CheckResult::ALL) {
            let counter = slot.get_or_init(|| of.health_checks.get((upstream, endpoint, each)));
            counter.add(u64::from(each == result));
        }
    }

    fn attempts(&self, of: &Families, error: Option<ErrorType>) -> Option<&Counter> {
        let slot = self.attempts.get(error.map_or(ErrorType::ALL.len(), |error| error as usize))?;
        let (upstream, endpoint) = self.labels();
        Some(slot.get_or_init(|| of.endpoint_attempts.get((upstream, endpoint, AttemptResult(error)))))
    }
}

impl Endpoints {
    /// The configuration names this endpoint.
    pub(super) fn admit(&self, of: &Families, upstream: Named<'_, Upstream>, endpoint: Named<'_, Endpoint>) {
        let mut known = self.0.write();
        if known.get(upstream.as_str()).is_some_and(|endpoints| endpoints.contains_key(endpoint.as_str()))
            || known.values().map(Map::len).sum::<usize>() >= ENDPOINTS_MAX
        {
            return;
        }
        let handles = Arc::new(Handles::new(upstream, endpoint));
        // There from the start: a rate needs a zero before the first one.
        handles.attempts(of, None);
        known.entry(upstream.as_str().into()).or_default().insert(endpoint.as_str().into(), handles);
    }

    /// It names it no more.
    pub(super) fn remove(&self, of: &Families, upstream: Named<'_, Upstream>, endpoint: Named<'_, Endpoint>) {
        let mut known = self.0.write();
        if let Some(endpoints) = known.get_mut(upstream.as_str()) {
            endpoints.remove(endpoint.as_str());
            if endpoints.is_empty() {
                known.remove(upstream.as_str());
            }
        }
        of.endpoint_first_token.remove((upstream, endpoint));
        of.endpoint_duration.remove((upstream, endpoint));
        for error in ErrorType::ALL.into_iter().map(Some).chain([None]) {
            of.endpoint_attempts.remove((upstream, endpoint, AttemptResult(error)));
        }
        for result in CheckResult::ALL {
            of.health_checks.remove((upstream, endpoint, result));
        }
    }

    /// Counts a health check of one address of an endpoint.
    pub(super) fn checked(&self, of: &Families, checked: EndpointOf<'_>, result: CheckResult, names: &Known) {
        let known = self.0.read();
        let found = known.get(checked.upstream).and_then(|endpoints| endpoints.get(checked.endpoint));
        match found {
            Some(handles) => handles.checked(of, result),
            None => Handles::new(names.upstream(checked.upstream), OTHER).checked(of, result),
        }
    }

    /// Counts and times the attempts of one finished request.
    pub(super) fn observe(&self, of: &Families, record: &Record, names: &Known) {
        let exemplar = record.trace.sampled.then(|| (record.trace.trace_id, record.started + record.duration));
        let known = self.0.read();
        for (number, attempt) in record.attempts.iter().enumerate() {
            let found = known.get(&*attempt.upstream).and_then(|endpoints| endpoints.get(&*attempt.place.endpoint));
            let handles =
                found.cloned().unwrap_or_else(|| Arc::new(Handles::new(names.upstream(&attempt.upstream), OTHER)));
            if let Some(counter) = handles.attempts(of, attempt.error) {
                counter.add(1);
            }
            // How long one was waited for that lost says nothing of it.
            if attempt.error == Some(ErrorType::HedgeLost) {
                continue;
            }
            let took = attempt.ended.saturating_sub(attempt.started);
            let duration = handles.duration.get_or_init(|| of.endpoint_duration.get(handles.labels()));
            duration.observe(took.as_secs_f64(), exemplar);
            let llm = record.llm.as_ref().filter(|llm| record.passed_on == Some(number) && !llm.is_fetched());
            if let Some(at) = llm.and_then(|llm| llm.reading.first_token) {
                let first_token = handles.first_token.get_or_init(|| of.endpoint_first_token.get(handles.labels()));
                first_token.observe(at.saturating_sub(attempt.started).as_secs_f64(), exemplar);
            }
        }
    }
}
