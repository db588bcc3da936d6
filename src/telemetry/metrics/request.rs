//! The labels that most metrics of a request share, and the same as attributes for an exporter.

use std::sync::Arc;

use opentelemetry::KeyValue;

use super::labels::{Model, NONE, Named, Operation, Provider, Route, Upstream, Variant};
use crate::telemetry::semconv as names;

/// What a record says of the labels that most metrics of a request share: nothing of it has a bound yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Said<'a> {
    pub(super) route: &'a str,
    pub(super) upstream: &'a str,
    pub(super) variant: &'a str,
    pub(super) model: &'a str,
    pub(super) operation: Operation,
    pub(super) provider: &'a str,
}

/// The labels that most metrics of a request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Labels<'a> {
    pub(super) route: Named<'a, Route>,
    pub(super) upstream: Named<'a, Upstream>,
    pub(super) variant: Named<'a, Variant>,
    pub(super) model: Named<'a, Model>,
    pub(super) operation: Operation,
    pub(super) provider: Named<'a, Provider>,
}

impl<'a> Labels<'a> {
    /// What a record says that has these.
    pub(super) fn said(self) -> Said<'a> {
        Said {
            route: self.route.as_str(),
            upstream: self.upstream.as_str(),
            variant: self.variant.as_str(),
            model: self.model.as_str(),
            operation: self.operation,
            provider: self.provider.as_str(),
        }
    }
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
        let said = labels.said();
        let target: Vec<_> =
            [told(names::ROUTE, said.route), told(names::UPSTREAM, said.upstream), told(names::VARIANT, said.variant)]
                .into_iter()
                .flatten()
                .collect();
        let model = told(names::GEN_AI_REQUEST_MODEL, said.model);
        let call = [
            told(names::GEN_AI_OPERATION_NAME, said.operation.as_str()),
            told(names::GEN_AI_PROVIDER_NAME, said.provider),
            model.clone(),
        ];
        let genai = call.into_iter().flatten().chain(target.iter().cloned()).collect();
        Self { target, model, genai }
    }
}
