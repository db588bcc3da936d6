//! The handles of one combination of labels, resolved once: a request then pays one lookup, not one a metric.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::families::Families;
use super::labels::{Attributes, Labels, status_label};
use super::series::{Counter, Dollars, Histogram};
use super::tally::Tally;
use super::used::{Modality, Used};
use crate::llm::UsageSource;
use crate::telemetry::record::{ErrorType, Outcome, Phase};

/// The series of requests with the same labels. Each is made when the first value for it comes, so that a route
/// without LLM traffic has no empty LLM series.
pub(super) struct Bundle {
    route: Box<str>,
    upstream: Box<str>,
    variant: Box<str>,
    model: Box<str>,
    operation: &'static str,
    provider: Box<str>,
    phases: [Slot<Histogram>; Phase::ALL.len()],
    overhead: Slot<Histogram>,
    first_token: Slot<Histogram>,
    per_token: Slot<Histogram>,
    first_byte: Slot<Histogram>,
    first_answer: Slot<Histogram>,
    token_gap: Slot<Tally>,
    buffered: Slot<Counter>,
    slow_gaps: Slot<Counter>,
    /// By error; the last is success.
    durations: [Slot<Histogram>; ErrorType::ALL.len() + 1],
    input_usage: Slot<Histogram>,
    output_usage: Slot<Histogram>,
    used: [[Slot<Counter>; Modality::ALL.len()]; Used::ALL.len()],
    /// Of requests that succeeded: input, output.
    operation_tokens: [Slot<Histogram>; 2],
    input_tokens: Slot<Counter>,
    output_tokens: Slot<Counter>,
    cache_read_tokens: Slot<Counter>,
    cache_write_tokens: Slot<Counter>,
    reasoning_tokens: Slot<Counter>,
    llm_calls: [Slot<Counter>; UsageSource::ALL.len()],
    unpriced: Slot<Counter>,
    /// Attempts at this upstream that succeeded.
    attempts_ok: Slot<Counter>,
    attributes: OnceLock<Box<Attributes>>,
    /// The first few results seen: nearly all requests end in one of them.
    results: [OnceLock<Result>; 6],
}

type Slot<M> = OnceLock<Arc<M>>;

/// An outcome and a status, and how often requests ended so.
type Result = (Outcome, Option<u16>, Arc<Counter>);

/// What kind of tokens are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Input,
    Output,
}

impl TokenType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Tokens that are among those of a [`TokenType`] already, and so have families of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenPart {
    CacheRead,
    CacheWrite,
    Reasoning,
}

/// A handle from its slot, resolved by `$values` of `$family` the first time.
macro_rules! handle {
    ($slot:expr, $family:expr, $values:expr) => {
        $slot.get_or_init(|| $family.get($values))
    };
}

impl Bundle {
    fn new(labels: Labels<'_>) -> Self {
        Self {
            route: labels.route.into(),
            upstream: labels.upstream.into(),
            variant: labels.variant.into(),
            model: labels.model.into(),
            operation: labels.operation,
            provider: labels.provider.into(),
            phases: Default::default(),
            overhead: OnceLock::new(),
            first_token: OnceLock::new(),
            per_token: OnceLock::new(),
            first_byte: OnceLock::new(),
            first_answer: OnceLock::new(),
            token_gap: OnceLock::new(),
            buffered: OnceLock::new(),
            slow_gaps: OnceLock::new(),
            durations: [const { OnceLock::new() }; _],
            input_usage: OnceLock::new(),
            output_usage: OnceLock::new(),
            used: Default::default(),
            operation_tokens: Default::default(),
            attributes: OnceLock::new(),
            input_tokens: OnceLock::new(),
            output_tokens: OnceLock::new(),
            cache_read_tokens: OnceLock::new(),
            cache_write_tokens: OnceLock::new(),
            reasoning_tokens: OnceLock::new(),
            llm_calls: Default::default(),
            unpriced: OnceLock::new(),
            attempts_ok: OnceLock::new(),
            results: Default::default(),
        }
    }

    fn labels(&self) -> Labels<'_> {
        Labels {
            route: &self.route,
            upstream: &self.upstream,
            variant: &self.variant,
            model: &self.model,
            operation: self.operation,
            provider: &self.provider,
        }
    }

    fn target(&self) -> [&str; 3] {
        [&self.route, &self.upstream, &self.variant]
    }

    fn genai(&self) -> [&str; 6] {
        [&self.route, &self.upstream, &self.variant, &self.model, self.operation, &self.provider]
    }

    fn genai_and<'a>(&'a self, last: &'a str) -> [&'a str; 7] {
        let [route, upstream, variant, model, operation, provider] = self.genai();
        [route, upstream, variant, model, operation, provider, last]
    }

    pub(super) fn phase(&self, of: &Families, phase: Phase) -> Option<&Histogram> {
        let slot = self.phases.get(phase as usize)?;
        Some(handle!(slot, of.phase, [&self.route, &self.upstream, phase.as_str()]))
    }

    pub(super) fn overhead(&self, of: &Families) -> &Histogram {
        handle!(self.overhead, of.overhead, [&self.route])
    }

    pub(super) fn first_token(&self, of: &Families) -> &Histogram {
        handle!(self.first_token, of.first_token, self.genai())
    }

    pub(super) fn per_token(&self, of: &Families) -> &Histogram {
        handle!(self.per_token, of.per_token, self.genai())
    }

    pub(super) fn first_byte(&self, of: &Families) -> &Histogram {
        handle!(self.first_byte, of.first_byte, self.target())
    }

    pub(super) fn first_answer(&self, of: &Families) -> &Histogram {
        handle!(self.first_answer, of.first_answer, self.target())
    }

    pub(super) fn token_gap(&self, of: &Families) -> &Tally {
        handle!(self.token_gap, of.token_gap, self.target())
    }

    pub(super) fn buffered(&self, of: &Families) -> &Counter {
        handle!(self.buffered, of.buffered, [&self.upstream])
    }

    pub(super) fn slow_gaps(&self, of: &Families) -> &Counter {
        handle!(self.slow_gaps, of.slow_gaps, [&self.route, &self.upstream])
    }

    pub(super) fn duration(&self, of: &Families, error: Option<ErrorType>) -> Option<&Histogram> {
        let slot = self.durations.get(error.map_or(ErrorType::ALL.len(), |error| error as usize))?;
        let word = error.map_or("", ErrorType::as_str);
        Some(handle!(slot, of.request_duration, self.genai_and(word)))
    }

    /// Tokens a request.
    pub(super) fn token_usage(&self, of: &Families, kind: TokenType) -> &Histogram {
        let slot = match kind {
            TokenType::Input => &self.input_usage,
            TokenType::Output => &self.output_usage,
        };
        handle!(slot, of.token_usage, self.genai_and(kind.as_str()))
    }

    /// The labels as attributes, for those who export.
    pub(super) fn attributes(&self) -> &Attributes {
        self.attributes.get_or_init(|| Box::new(Attributes::new(self.labels())))
    }

    /// A usage counter of the conventions.
    pub(super) fn used(&self, of: &Families, counter: Used, modality: Modality) -> Option<&Counter> {
        let slot = self.used.get(counter as usize)?.get(modality as usize)?;
        let family = match counter {
            Used::Input => &of.used_input,
            Used::Output => &of.used_output,
            Used::CacheRead => &of.used_cache_read,
            Used::CacheWrite => &of.used_cache_write,
            Used::Reasoning => &of.used_reasoning,
        };
        Some(handle!(slot, family, self.genai_and(modality.as_str())))
    }

    /// Tokens an operation, by the conventions; `output` or input.
    pub(super) fn operation_tokens(&self, of: &Families, output: bool, error: Option<ErrorType>) -> Arc<Histogram> {
        let family = if output { &of.operation_output } else { &of.operation_input };
        match (error, self.operation_tokens.get(usize::from(output))) {
            (None, Some(slot)) => Arc::clone(handle!(slot, family, self.genai_and(""))),
            _ => family.get(self.genai_and(error.map_or("", ErrorType::as_str))),
        }
    }

    pub(super) fn tokens(&self, of: &Families, kind: TokenType) -> &Counter {
        let slot = match kind {
            TokenType::Input => &self.input_tokens,
            TokenType::Output => &self.output_tokens,
        };
        handle!(slot, of.tokens, [&self.route, &self.upstream, &self.model, kind.as_str()])
    }

    pub(super) fn token_part(&self, of: &Families, part: TokenPart) -> &Counter {
        let (slot, family) = match part {
            TokenPart::CacheRead => (&self.cache_read_tokens, &of.cache_read_tokens),
            TokenPart::CacheWrite => (&self.cache_write_tokens, &of.cache_write_tokens),
            TokenPart::Reasoning => (&self.reasoning_tokens, &of.reasoning_tokens),
        };
        handle!(slot, family, [&self.route, &self.upstream, &self.model])
    }

    /// Tokens at another upstream that was asked for the same requests.
    pub(super) fn tokens_at(&self, of: &Families, upstream: &str, kind: TokenType) -> Arc<Counter> {
        of.tokens.get([&self.route, upstream, &self.model, kind.as_str()])
    }

    pub(super) fn llm_calls(&self, of: &Families, source: UsageSource) -> Option<&Counter> {
        let slot = self.llm_calls.get(source as usize)?;
        Some(handle!(slot, of.llm_calls, [&self.route, &self.upstream, source.as_str()]))
    }

    /// Calls that took tokens of a model without a price.
    pub(super) fn unpriced(&self, of: &Families) -> &Counter {
        handle!(self.unpriced, of.unpriced, [&self.route, &self.upstream, &self.model])
    }

    /// What a team's tokens cost. The team is a label already.
    pub(super) fn cost(&self, of: &Families, team: &str) -> Arc<Dollars> {
        of.cost.get([&self.route, &self.model, team])
    }

    /// Successful attempts at the upstream that served.
    pub(super) fn attempts_ok(&self, of: &Families) -> &Counter {
        handle!(self.attempts_ok, of.attempts, [&self.upstream, "ok"])
    }

    /// Counts one request that ended so.
    pub(super) fn ended(&self, of: &Families, outcome: Outcome, status: Option<u16>) {
        for slot in &self.results {
            let (seen, with, counter) = slot.get_or_init(|| (outcome, status, self.result(of, outcome, status)));
            if (*seen, *with) == (outcome, status) {
                return counter.add(1);
            }
        }
        self.result(of, outcome, status).add(1);
    }

    fn result(&self, of: &Families, outcome: Outcome, status: Option<u16>) -> Arc<Counter> {
        let [route, upstream, variant] = self.target();
        of.requests.get([route, upstream, variant, &self.model, outcome.as_str(), &status_label(status)])
    }
}

/// Bundles by their labels, found by content and without allocating.
#[derive(Default)]
pub(super) struct Bundles {
    by_hash: RwLock<HashMap<u64, Vec<Arc<Bundle>>>>,
    /// Randomly keyed: models are the clients' texts.
    hasher: RandomState,
}

impl Bundles {
    /// Handles kept at most. More combinations than that only cost resolving them again.
    const MAX: usize = 4_096;

    pub(super) fn find(&self, labels: &Labels<'_>) -> Option<Arc<Bundle>> {
        let hash = self.hasher.hash_one(labels);
        let bundles = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        bundles.get(&hash)?.iter().find(|bundle| bundle.labels() == *labels).cloned()
    }

    pub(super) fn find_or_make(&self, labels: Labels<'_>) -> Arc<Bundle> {
        if let Some(found) = self.find(&labels) {
            return found;
        }
        let made = Arc::new(Bundle::new(labels));
        let mut bundles = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        if bundles.len() >= Self::MAX {
            bundles.clear();
        }
        bundles.entry(self.hasher.hash_one(labels)).or_default().push(Arc::clone(&made));
        made
    }

    /// Forgets all handles: series were removed, and must not be written to any more.
    pub(super) fn clear(&self) {
        self.by_hash.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_sources_have_their_slots() {
        for (slot, source) in UsageSource::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, slot);
        }
    }
}
