//! What happened on the way of a request, as events of its spans.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::Event;

use super::record::LimitInfo;
use super::semconv as names;
use crate::policy::canary::Decision;

/// A limit let the request pass, or did not.
pub(super) fn limit_decision(limit: &LimitInfo, at: SystemTime) -> Event {
    let number = |name, count| KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX));
    let mut attributes = vec![number(names::LIMIT_RESERVED, limit.reserved), number(names::LIMIT_USED, limit.used)];
    attributes.push(KeyValue::new(names::LIMIT_DECISION, limit.verdict.decision()));
    attributes.extend(limit.verdict.denied_by().map(|by| KeyValue::new(names::LIMIT_NAME, Arc::clone(by))));
    Event::new(names::EVENT_LIMIT, at, attributes, 0)
}

/// The judge of the route's canary decided.
pub(super) fn canary_decision(decision: &Decision, at: SystemTime) -> Event {
    let attributes = vec![
        KeyValue::new(names::CANARY_DECISION, decision.kind.as_str()),
        KeyValue::new(names::CANARY_FROM, i64::from(decision.from)),
        KeyValue::new(names::CANARY_TO, i64::from(decision.to)),
        KeyValue::new(names::CANARY_REASON, decision.reason.to_string()),
    ];
    Event::new(names::EVENT_CANARY, at, attributes, 0)
}
