//! The labels that most metrics of a request share, and the same as attributes for an exporter.

use std::sync::Arc;

use opentelemetry::KeyValue;

use super::known::NONE;
use crate::telemetry::semconv as names;

/// The labels that most metrics of a request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Labels<'a> {
    pub(super) route: &'a str,
    pub(super) upstream: &'a str,
    pub(super) variant: &'a str,
    pub(super) model: &'a str,
    pub(super) operation: &'static str,
    pub(super) provider: &'a str,
}

/// The labels of requests as attributes, made once a combination.
#[derive(Debug)]
pub(super) struct Attributes {
    /// Route, upstream and variant.
    pub(super) target: Vec<KeyValue>,
    pub(super) model: Option<KeyValue>,
    /// All that metrics of the conventions have, but for the endpoint.
    pub(super) genai: Vec<KeyValue>,
}

impl Attributes {
    pub(super) fn new(labels: Labels<'_>) -> Self {
        let told = |name, value: &str| (value != NONE).then(|| KeyValue::new(name, Arc::<str>::from(value)));
        let target: Vec<_> = [
            told(names::ROUTE, labels.route),
            told(names::UPSTREAM, labels.upstream),
            told(names::VARIANT, labels.variant),
        ]
        .into_iter()
        .flatten()
        .collect();
        let model = told(names::GEN_AI_REQUEST_MODEL, labels.model);
        let call = [
            told(names::GEN_AI_OPERATION_NAME, labels.operation),
            told(names::GEN_AI_PROVIDER_NAME, labels.provider),
            model.clone(),
        ];
        let genai = call.into_iter().flatten().chain(target.iter().cloned()).collect();
        Self { target, model, genai }
    }
}

/// The status as a label: a registered code as it is, any other by its class, as `4xx`; so there are few.
pub(super) fn status_label(status: Option<u16>) -> String {
    match status {
        None => "none".to_owned(),
        Some(code @ (100..=103 | 200..=208 | 226 | 300..=308 | 400..=431 | 451 | 499..=511 | 529)) => code.to_string(),
        Some(code @ 100..=999) => format!("{}xx", code / 100),
        Some(_) => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_few() {
        let mut labels: Vec<_> = (0..=u16::MAX).map(|status| status_label(Some(status))).collect();
        labels.sort_unstable();
        labels.dedup();
        assert!((60..90).contains(&labels.len()), "{}", labels.len());
        assert_eq!(status_label(None), "none");
        assert_eq!(status_label(Some(200)), "200");
        assert_eq!(status_label(Some(418)), "418");
        assert_eq!(status_label(Some(599)), "5xx");
        assert_eq!(status_label(Some(7)), "other");
    }
}
