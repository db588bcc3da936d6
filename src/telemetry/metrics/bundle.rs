//! The handles of one combination of labels, resolved once: a request then pays one lookup, not one a metric.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::declarations::Families;
use super::gap_histogram::Tally;
use super::gen_ai_usage::Used;
use super::labels::{
    AttemptResult, ErrorLabel, Kept, Modality, Model, Named, Operation, Provider, Route, Status, Team, TokenType,
    Upstream, Variant,
};
use super::request::{Attributes, Labels, Said};
use super::series::{Counter, Dollars, Histogram};
use crate::llm::UsageSource;
use crate::telemetry::record::{ErrorType, Outcome, Phase};

/// The series of requests with the same labels. Each is made when the first value for it comes, so that a route
/// without LLM traffic has no empty LLM series.
pub(super) struct Bundle {
    route: Kept<Route>,
    upstream: Kept<Upstream>,
    variant: Kept<Variant>,
    model: Kept<Model>,
    operation: Operation,
    provider: Kept<Provider>,
    /// By error; the last is success.
    durations: [Slot<Histogram>; ErrorType::ALL.len() + 1],
    slots: Slots,
    handles: Handles,
}

/// What each handle is resolved into, all empty at first.
#[derive(Default)]
struct Slots {
    phases: [Slot<Histogram>; Phase::ALL.len()],
    used: [[Slot<Counter>; Modality::ALL.len()]; Used::ALL.len()],
    /// Of requests that succeeded: input, output.
    operation_tokens: [Slot<Histogram>; 2],
    llm_calls: [Slot<Counter>; UsageSource::ALL.len()],
    attributes: OnceLock<Box<Attributes>>,
    /// The first few results seen: nearly all requests end in one of them.
    results: [OnceLock<Result>; 6],
}

type Slot<M> = OnceLock<Arc<M>>;

/// An outcome and a status, and how often requests ended so.
type Result = (Outcome, Option<u16>, Arc<Counter>);

type Target<'a> = (Named<'a, Route>, Named<'a, Upstream>, Named<'a, Variant>);

type GenAi<'a> =
    (Named<'a, Route>, Named<'a, Upstream>, Named<'a, Variant>, Named<'a, Model>, Operation, Named<'a, Provider>);

type GenAiAnd<'a, T> =
    (Named<'a, Route>, Named<'a, Upstream>, Named<'a, Variant>, Named<'a, Model>, Operation, Named<'a, Provider>, T);

/// A handle from its slot, resolved by `$values` of `$family` the first time.
macro_rules! handle {
    ($slot:expr, $family:expr, $values:expr) => {
        $slot.get_or_init(|| $family.get($values))
    };
}

/// Handles of the families of these names, each in one slot, with the labels that `$labels` tell of the bundle.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident: $metric:ident of $family:ident = |$bundle:ident| $labels:expr;)+) => {
        #[derive(Default)]
        struct Handles { $($name: Slot<$metric>),+ }

        impl Bundle {
            $($(#[$doc])*
            pub(super) fn $name(&self, of: &Families) -> &$metric {
                let $bundle = self;
                handle!(self.handles.$name, of.$family, $labels)
            })+
        }
    };
}

handles! {
    overhead: Histogram of overhead = |bundle| (bundle.route.name(),);
    first_token: Histogram of first_token = |bundle| bundle.genai();
    per_token: Histogram of per_token = |bundle| bundle.genai();
    first_byte: Histogram of first_byte = |bundle| bundle.target();
    first_answer: Histogram of first_answer = |bundle| bundle.target();
    token_gap: Tally of token_gap = |bundle| bundle.target();
    buffered: Counter of buffered = |bundle| (bundle.upstream.name(),);
    slow_gaps: Counter of slow_gaps = |bundle| (bundle.route.name(), bundle.upstream.name());
    // Tokens that are among those of a [`TokenType`] already, and so have families of their own.
    cache_read_tokens: Counter of cache_read_tokens = |bundle| bundle.model();
    cache_write_tokens: Counter of cache_write_tokens = |bundle| bundle.model();
    reasoning_tokens: Counter of reasoning_tokens = |bundle| bundle.model();
    /// Calls that took tokens of a model without a price.
    unpriced: Counter of unpriced = |bundle| bundle.model();
    // Tokens of a request.
    input_usage: Histogram of token_usage = |bundle| bundle.genai_and(TokenType::Input);
    output_usage: Histogram of token_usage = |bundle| bundle.genai_and(TokenType::Output);
    input_tokens: Counter of tokens = |bundle| (bundle.route.name(), bundle.upstream.name(), bundle.model.name(), TokenType::Input);
    output_tokens: Counter of tokens = |bundle| (bundle.route.name(), bundle.upstream.name(), bundle.model.name(), TokenType::Output);
    /// Attempts at this upstream that succeeded.
    attempts_ok: Counter of attempts = |bundle| (bundle.upstream.name(), AttemptResult(None));
}

impl Bundle {
    fn new(labels: Labels<'_>) -> Self {
        Self {
            route: labels.route.keep(),
            upstream: labels.upstream.keep(),
            variant: labels.variant.keep(),
            model: labels.model.keep(),
            operation: labels.operation,
            provider: labels.provider.keep(),
            durations: [const { OnceLock::new() }; _],
            slots: Slots::default(),
            handles: Handles::default(),
        }
    }

    fn labels(&self) -> Labels<'_> {
        Labels {
            route: self.route.name(),
            upstream: self.upstream.name(),
            variant: self.variant.name(),
            model: self.model.name(),
            operation: self.operation,
            provider: self.provider.name(),
        }
    }

    fn target(&self) -> Target<'_> {
        (self.route.name(), self.upstream.name(), self.variant.name())
    }

    fn model(&self) -> (Named<'_, Route>, Named<'_, Upstream>, Named<'_, Model>) {
        (self.route.name(), self.upstream.name(), self.model.name())
    }

    fn genai(&self) -> GenAi<'_> {
        let (route, upstream, variant) = self.target();
        (route, upstream, variant, self.model.name(), self.operation, self.provider.name())
    }

    fn genai_and<T>(&self, last: T) -> GenAiAnd<'_, T> {
        let (route, upstream, variant, model, operation, provider) = self.genai();
        (route, upstream, variant, model, operation, provider, last)
    }

    pub(super) fn phase(&self, of: &Families, phase: Phase) -> Option<&Histogram> {
        let slot = self.slots.phases.get(phase as usize)?;
        Some(handle!(slot, of.phase, (self.route.name(), self.upstream.name(), phase)))
    }

    pub(super) fn duration(&self, of: &Families, error: Option<ErrorType>) -> Option<&Histogram> {
        let slot = self.durations.get(error.map_or(ErrorType::ALL.len(), |error| error as usize))?;
        Some(handle!(slot, of.request_duration, self.genai_and(ErrorLabel(error))))
    }

    /// Tokens a request.
    pub(super) fn token_usage(&self, of: &Families, kind: TokenType) -> &Histogram {
        match kind {
            TokenType::Input => self.input_usage(of),
            TokenType::Output => self.output_usage(of),
        }
    }

    /// The labels as attributes, for those who export.
    pub(super) fn attributes(&self) -> &Attributes {
        self.slots.attributes.get_or_init(|| Box::new(Attributes::new(self.labels())))
    }

    /// A usage counter of the conventions.
    pub(super) fn used(&self, of: &Families, counter: Used, modality: Modality) -> Option<&Counter> {
        let slot = self.slots.used.get(counter as usize)?.get(modality as usize)?;
        let family = match counter {
            Used::Input => &of.used_input,
            Used::Output => &of.used_output,
            Used::CacheRead => &of.used_cache_read,
            Used::CacheWrite => &of.used_cache_write,
            Used::Reasoning => &of.used_reasoning,
        };
        Some(handle!(slot, family, self.genai_and(modality)))
    }

    /// Tokens an operation, by the conventions; `output` or input.
    pub(super) fn operation_tokens(&self, of: &Families, output: bool, error: Option<ErrorType>) -> Arc<Histogram> {
        let family = if output { &of.operation_output } else { &of.operation_input };
        match (error, self.slots.operation_tokens.get(usize::from(output))) {
            (None, Some(slot)) => Arc::clone(handle!(slot, family, self.genai_and(ErrorLabel(None)))),
            _ => family.get(self.genai_and(ErrorLabel(error))),
        }
    }

    pub(super) fn tokens(&self, of: &Families, kind: TokenType) -> &Counter {
        match kind {
            TokenType::Input => self.input_tokens(of),
            TokenType::Output => self.output_tokens(of),
        }
    }

    /// Tokens at another upstream that was asked for the same requests.
    pub(super) fn tokens_at(&self, of: &Families, upstream: Named<'_, Upstream>, kind: TokenType) -> Arc<Counter> {
        of.tokens.get((self.route.name(), upstream, self.model.name(), kind))
    }

    pub(super) fn llm_calls(&self, of: &Families, source: UsageSource) -> Option<&Counter> {
        let slot = self.slots.llm_calls.get(source as usize)?;
        Some(handle!(slot, of.llm_calls, (self.route.name(), self.upstream.name(), source)))
    }

    /// What a team's tokens cost.
    pub(super) fn cost(&self, of: &Families, team: Named<'_, Team>) -> Arc<Dollars> {
        of.cost.get((self.route.name(), self.model.name(), team))
    }

    /// Counts one request that ended so.
    pub(super) fn ended(&self, of: &Families, outcome: Outcome, status: Option<u16>) {
        for slot in &self.slots.results {
            let (seen, with, counter) = slot.get_or_init(|| (outcome, status, self.result(of, outcome, status)));
            if (*seen, *with) == (outcome, status) {
                return counter.add(1);
            }
        }
        self.result(of, outcome, status).add(1);
    }

    fn result(&self, of: &Families, outcome: Outcome, status: Option<u16>) -> Arc<Counter> {
        let (route, upstream, variant) = self.target();
        of.requests.get((route, upstream, variant, self.model.name(), outcome, Status::new(status)))
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

    /// The handles of the labels that a record says, where these are bounded: others have none.
    pub(super) fn find(&self, said: Said<'_>) -> Option<Arc<Bundle>> {
        let hash = self.hasher.hash_one(said);
        let bundles = self.by_hash.read();
        bundles.get(&hash)?.iter().find(|bundle| bundle.labels().said() == said).cloned()
    }

    pub(super) fn find_or_make(&self, labels: Labels<'_>) -> Arc<Bundle> {
        if let Some(found) = self.find(labels.said()) {
            return found;
        }
        let made = Arc::new(Bundle::new(labels));
        let mut bundles = self.by_hash.write();
        if bundles.len() >= Self::MAX {
            bundles.clear();
        }
        bundles.entry(self.hasher.hash_one(labels.said())).or_default().push(Arc::clone(&made));
        made
    }

    /// Forgets all handles: series were removed, and must not be written to any more.
    pub(super) fn clear(&self) {
        self.by_hash.write().clear();
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
