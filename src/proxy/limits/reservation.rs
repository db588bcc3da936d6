//! What one request holds of its limits until it has ended, and what it is charged with.

use std::sync::Arc;

use super::limiter::Hold;
use crate::llm::price::{Cost, Price};
use crate::llm::{Reading, RequestFacts, Usage, UsageSource};
use crate::policy::limits::{Place, Used};
use crate::telemetry::event::{Attempted, Event};
use crate::telemetry::record::Outcome;

/// Bytes of a body that was not read, for a token.
const UNREAD_BYTES_PER_TOKEN: u64 = 4;

/// A stream tells of its tokens in steps: each costs a lock.
const STEP_TOKENS: u64 = 16;

/// Tokens that a request is expected to take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected {
    pub(crate) prompt: u64,
    /// As [`Estimate::usual_output`](crate::policy::limits::Estimate::usual_output); of several limits the least.
    pub(crate) usual_output: u64,
}

/// What one request holds of its limits. Dropping it settles: after a normal end, a panic or an abort alike.
pub(crate) struct Reservation {
    hold: Hold,
    /// Prompt tokens, as estimated.
    prompt: u64,
    body_bytes: u64,
    /// What its answer is compared by.
    model: Arc<str>,
    /// Where it went, if it showed nothing of an LLM.
    unforeseen: Option<Place>,
    /// What such answers take, at most what is held.
    usual_output: u64,
    /// Nothing of its prompt or answer can be counted here: sound, pictures, files.
    uncountable: bool,
    /// It was answered, and with no error.
    succeeded: bool,
    /// The answer comes in one piece: nothing else tells of one whose client went before it came.
    comes_whole: bool,
    /// What flows was taken before, or is another request's.
    delivers: bool,
    /// The response is made in the background, and nobody saw its end.
    given_up: bool,
    /// The request was sent to an upstream.
    asked: bool,
    /// Tokens that were seen to flow.
    generated: u64,
    usage: Usage,
    /// The upstream itself said all of `usage`.
    reported: bool,
    /// The answer was an LLM's.
    is_llm: bool,
    /// What `usage` cost.
    cost: Option<Cost>,
    /// What attempts cost that lost a hedge.
    hedge_cost: Cost,
    price: Option<Price>,
    outcome: Outcome,
}

impl Reservation {
    /// What was held for a request of `facts` with a body of so many bytes. Its answer is compared with others of `model`.
    pub(crate) fn new(
        hold: Hold,
        held: Expected,
        facts: &RequestFacts,
        model: Arc<str>,
        body_bytes: u64,
        price: Option<Price>,
    ) -> Self {
        Self {
            hold,
            prompt: held.prompt,
            usual_output: held.usual_output,
            // Embeddings have no output.
            comes_whole: facts.answers_whole() && facts.operation != Some("embeddings"),
            delivers: facts.retrieves(),
            given_up: false,
            uncountable: facts.is_llm() && !facts.has_countable_prompt(),
            succeeded: false,
            body_bytes,
            model,
            unforeseen: None,
            asked: false,
            generated: 0,
            usage: Usage::default(),
            reported: false,
            is_llm: false,
            cost: None,
            hedge_cost: Cost::ZERO,
            price,
            outcome: Outcome::InternalError,
        }
    }

    /// The request shows nothing of an LLM: what its answer takes is remembered for the next one to `place`.
    pub(crate) fn unforeseen(mut self, place: Option<Place>) -> Self {
        self.unforeseen = place;
        self
    }

    /// The request is on its way to an upstream.
    pub(crate) fn asked(&mut self) {
        self.asked = true;
    }

    /// So many tokens have flowed by now. Tells whether the stream must be cut.
    pub(crate) fn generated(&mut self, tokens: u64) -> bool {
        if self.delivers {
            return false;
        }
        self.generated = self.generated.max(tokens);
        let told = self.hold.told();
        let used = Used { tokens: self.prompt + self.generated, cost: self.price_of(self.prompt, self.generated) };
        used.tokens >= told.tokens + STEP_TOKENS && self.hold.report(used, false)
    }

    /// Keeps what `event` tells of what the request took. Inlined, with one arm left of it: each stage tells an event that it names.
    #[inline(always)]
    pub(crate) fn apply(&mut self, event: &Event<'_>) {
        match event {
            Event::Read(llm) if llm.is_own() => self.read(&llm.reading, llm.bill.cost()),
            Event::Ended(outcome, error) => {
                self.outcome = *outcome;
                self.succeeded |= *outcome == Outcome::Completed && error.is_none();
            }
            Event::Attempted(Attempted { sent: true, .. }) => self.asked(),
            // The caller's budget pays it, as the bill will have it; of its tokens a minute it takes nothing: that was asked twice
            // was not its wish.
            Event::HedgesBilled(cost, _) => self.hedge_cost = *cost,
            _ => {}
        }
    }

    /// What the answer said that it took.
    pub(crate) fn read(&mut self, reading: &Reading, cost: Option<Cost>) {
        self.usage = reading.usage;
        self.reported = reading.usage_source == UsageSource::Reported && reading.usage.output.is_some();
        self.cost = cost;
        self.is_llm = true;
    }

    /// So many bytes came of the request's body. Where nothing of it was read, its size is all that is known of the prompt
    /// of what turned out to be an LLM's answer.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.is_llm && self.prompt == 0 {
            self.prompt = bytes / UNREAD_BYTES_PER_TOKEN;
        }
    }

    /// The response is made in the background, and what is held waits for its end no longer: it is taken for what such answers
    /// take.
    pub(crate) fn give_up(mut self) {
        self.given_up = true;
    }

    /// Ends the hold; tells how many tokens the request is charged with.
    pub(crate) fn settle(self) -> u64 {
        self.charge().tokens
    }

    /// What the request is charged with.
    fn charge(&self) -> Used {
        if let Some(output) = self.lost_output() {
            let output = output.max(self.generated);
            let cost = self.price_of(self.prompt, output).max(self.cost.map_or(0, Cost::nano_dollars));
            let tokens = self.prompt.saturating_add(output);
            return Used { tokens, cost: cost.saturating_add(self.hedge_cost.nano_dollars()) };
        }
        let tokens = match (self.usage.input, self.usage.output) {
            // Usage that came on the way tells only of what was before it, unless the answer is whole.
            (Some(input), Some(output)) if self.outcome == Outcome::Completed => input.saturating_add(output),
            (input, output) if self.generated > 0 => {
                input.unwrap_or(self.prompt).saturating_add(output.unwrap_or(0).max(self.generated))
            }
            (Some(input), output) => input.saturating_add(output.unwrap_or(0)),
            // Nothing was generated: the prompt was read for nothing where the client went, or the upstream fell silent.
            _ if self.asked && wasted(self.outcome) => self.prompt,
            _ => 0,
        };
        let cost = match self.cost {
            Some(cost) => cost.nano_dollars(),
            None if tokens > 0 => self.price_of(self.prompt, self.generated),
            None => 0,
        };
        Used { tokens, cost: cost.saturating_add(self.hedge_cost.nano_dollars()) }
    }

    /// What a whole answer is taken for whose client went before its usage came, one in the background that nobody saw the end of,
    /// and sound or a picture whose upstream tells no usage: it may well have made all of it.
    fn lost_output(&self) -> Option<u64> {
        let is_cut = self.comes_whole && self.outcome == Outcome::ClientCancelled;
        let is_untold = self.uncountable && self.succeeded && !self.usage.is_known();
        let is_lost = self.asked && !self.reported && (is_cut || self.given_up || is_untold);
        is_lost.then_some(self.usual_output)
    }

    fn price_of(&self, input: u64, output: u64) -> u64 {
        let usage = Usage { input: Some(input), output: Some(output), ..Usage::default() };
        self.price.map_or(0, |price| price.cost(&usage).nano_dollars())
    }

    fn learn(&self, charge: Used) {
        if let Some(place) = self.unforeseen.as_ref().filter(|_| self.asked && self.outcome == Outcome::Completed) {
            for claim in self.hold.claims().iter().filter(|claim| claim.limit.counts_tokens()) {
                self.hold.limiter().learn_unforeseen(&claim.holder, place, charge);
            }
        }
        let Some(output) = self.usage.output.filter(|_| self.unforeseen.is_none()) else { return };
        let is_answer = self.generated > 0 || (self.comes_whole && output > 0);
        if self.outcome == Outcome::Completed && is_answer {
            for claim in self.hold.claims().iter().filter(|claim| claim.limit.tokens.is_some()) {
                self.hold.limiter().learn(&claim.holder, &self.model, self.body_bytes, self.usage.input, output);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let charge = self.charge();
        self.hold.report(charge, true);
        self.learn(charge);
    }
}

/// Whether a request that ended so has cost its upstream a prompt, though no token came of it.
fn wasted(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::ClientCancelled | Outcome::Timeout | Outcome::Stalled | Outcome::Truncated)
}
