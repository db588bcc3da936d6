//! What each endpoint did in the last minutes: attempts, failures, and times to the first token as the attempts had them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::minutes::{Minutes, Summary, minute, slot};
use crate::telemetry::record::{ErrorType, Record};

/// Endpoints, and addresses of endpoints that are names, that are kept. One goes when it was quiet for all the minutes.
const KEPT_MAX: usize = 512;

/// The window over all endpoints.
#[derive(Default)]
pub struct Endpoints(Mutex<BTreeMap<Key, Minutes>>);

/// Upstream, endpoint, and for a name the address that was asked.
type Key = (Arc<str>, Arc<str>, Option<SocketAddr>);

impl Endpoints {
    /// Counts a request's attempts at their endpoints.
    pub fn observe(&self, record: &Record) {
        if record.attempts.is_empty() {
            return;
        }
        let now = minute(record.started + record.duration);
        let mut kept = self.0.lock();
        for (number, attempt) in record.attempts.iter().enumerate() {
            if attempt.error == Some(ErrorType::HedgeLost) {
                continue;
            }
            let key = (Arc::clone(&attempt.upstream), Arc::clone(&attempt.place.endpoint), attempt.place.peer);
            let Some(slot) = slot(&mut kept, key, now, KEPT_MAX) else { continue };
            let passed_on = record.llm.as_ref().filter(|llm| record.passed_on == Some(number) && !llm.is_fetched());
            let output = passed_on.and_then(|llm| llm.reading.usage.output).unwrap_or(0);
            slot.count(attempt.failed(), output);
            if let Some(at) = passed_on.and_then(|llm| llm.reading.first_token) {
                slot.first_token(at.saturating_sub(attempt.started));
            }
        }
    }

    /// What an endpoint did in the last minutes; of a name all its addresses, or the one.
    pub fn summary(
        &self,
        upstream: &Arc<str>,
        endpoint: &Arc<str>,
        one: Option<SocketAddr>,
        now: SystemTime,
    ) -> Summary {
        let (mut summary, now) = (Summary::default(), minute(now));
        let from = (Arc::clone(upstream), Arc::clone(endpoint), None);
        for ((of, at, peer), minutes) in self.0.lock().range((Bound::Included(from), Bound::Unbounded)) {
            if (of, at) != (upstream, endpoint) {
                break;
            }
            if one.is_none() || *peer == one {
                minutes.add_to(&mut summary, now);
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::records_for_tests::{attempt, chat, ms};

    #[test]
    fn each_endpoint_has_its_own_times_and_failures() {
        let window = Endpoints::default();
        let mut record = chat("m");
        record.attempts = vec![attempt("a", 1), attempt("b", 2)];
        record.attempts[0].error = Some(ErrorType::ConnectRefused);
        record.attempts[1].started = ms(10);
        record.passed_on = Some(1);
        for peer in ["10.0.0.1:8000", "10.0.0.1:8000", "10.0.0.2:8000"] {
            record.attempts[1].place.peer = Some(peer.parse().unwrap());
            window.observe(&record);
        }
        let endpoint = Arc::clone(&record.attempts[0].place.endpoint);
        let at = |upstream: &str, one: Option<&str>| {
            window.summary(&upstream.into(), &endpoint, one.map(|one| one.parse().unwrap()), record.started)
        };
        let (a, b) = (at("a", None), at("b", None));
        assert_eq!((a.requests, a.failed, a.first_tokens(), a.percentile(0.5)), (3, 3, 0, None));
        assert_eq!((b.requests, b.failed, b.first_tokens()), (3, 0, 3));
        assert_eq!(at("b", Some("10.0.0.1:8000")).requests, 2);
        assert_eq!(at("b", Some("10.0.0.3:8000")).requests, 0);
        let p50 = b.percentile(0.5).unwrap().as_secs_f64();
        assert!((p50 / 0.02 - 1.0).abs() < 0.05, "30 ms into the request, 20 ms into the attempt: {p50}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let window = Endpoints::default();
        for number in 0..KEPT_MAX + 50 {
            let mut record = chat("m");
            record.attempts[0].upstream = format!("u{number}").into();
            window.observe(&record);
        }
        assert_eq!(window.0.lock().len(), KEPT_MAX);
    }
}
