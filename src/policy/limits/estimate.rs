//! Estimates the tokens of a request before they are known: of its prompt, and of the longest answer that it allows.
//!
//! A fixed estimate would refuse first requests under a small limit, and admit too many under a large one. So the
//! client's own bound is used, else the sizes of this user's earlier answers from this model.

use std::sync::Arc;

use crate::config::limits::TokenLimit;
use crate::policy::recent_map::RecentMap;

/// Bytes of a JSON body a token, until a model's own ratio is learned.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Weight of the newest of a model's ratios.
const WEIGHT: f64 = 0.1;

/// The most that an answer is expected to take while nothing is known.
const COLD_START: u64 = 1024;

/// Answers kept of each user and model, and how many there must be before they count.
const ANSWERS: usize = 32;
const ANSWERS_MIN: usize = 5;

/// Users and models kept.
const GENERATION: usize = 10_000;

/// What is known of a request before it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub model: Option<&'a str>,
    /// In whose name, as `user:alice`.
    pub holder: &'a str,
    /// Of its JSON body.
    pub body_bytes: u64,
    /// Prompt tokens, where a tokenizer counted them.
    pub counted: Option<u64>,
    /// What the client sets as the most, for each answer.
    pub max_tokens: Option<u64>,
    /// Answers that are generated.
    pub answers: u64,
}

/// Tokens that a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub prompt: u64,
    pub prompt_basis: PromptBasis,
    pub output: u64,
    pub output_basis: OutputBasis,
    /// What answers like it took on average, never more than `output`, and `output` while that is not known: whoever goes
    /// before a whole answer comes is charged with it.
    pub usual_output: u64,
}

impl Estimate {
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.output)
    }
}

/// Where a prompt's number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptBasis {
    Counted,
    /// The body's bytes by the ratio learned of this model.
    Learned,
    /// The body's bytes by the usual ratio.
    Usual,
}

/// Where an answer's number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputBasis {
    /// The request's own bound, for each answer that is generated.
    MaxTokens,
    /// The limit's `output_cap`.
    OutputCap,
    /// The 95th percentile of this holder's last answers of this model.
    Learned,
    /// Nothing is known yet.
    ColdStart,
}

/// What earlier answers taught. Bounded.
#[derive(Debug)]
pub struct Learned {
    /// Bytes of a body a prompt token, by model.
    ratios: RecentMap<Arc<str>, f64>,
    /// Output tokens, by holder and model.
    outputs: RecentMap<(Arc<str>, Arc<str>), Outputs>,
}

#[derive(Debug, Default)]
struct Outputs {
    /// A ring.
    tokens: Vec<u64>,
    next: usize,
}

impl Default for Learned {
    fn default() -> Self {
        Self { ratios: RecentMap::new(GENERATION), outputs: RecentMap::new(GENERATION) }
    }
}

impl Learned {
    /// What `request` may take of `limit`.
    #[must_use]
    pub fn estimate(&self, request: &Request<'_>, limit: &TokenLimit) -> Estimate {
        let (prompt, prompt_basis) = self.prompt(request);
        let (output, output_basis) = self.output(request, limit);
        let usual = self.outputs_of(request).and_then(Outputs::mean);
        let usual_output = usual.map_or(output, |usual| usual.saturating_mul(request.answers.max(1)).min(output));
        Estimate { prompt, prompt_basis, output, output_basis, usual_output }
    }

    /// An answer is over, and its upstream reported its usage.
    pub fn learn(&mut self, holder: &Arc<str>, model: &Arc<str>, body_bytes: u64, input: Option<u64>, output: u64) {
        if let Some(input) = input.filter(|input| *input > 0 && body_bytes > 0) {
            let ratio = body_bytes as f64 / input as f64;
            let kept = self.ratios.entry(Arc::clone(model), || ratio);
            *kept += WEIGHT * (ratio - *kept);
        }
        self.outputs.entry((Arc::clone(holder), Arc::clone(model)), Outputs::default).push(output);
    }

    fn prompt(&self, request: &Request<'_>) -> (u64, PromptBasis) {
        if let Some(counted) = request.counted {
            return (counted, PromptBasis::Counted);
        }
        let learned = request.model.and_then(|model| self.ratios.get(model)).copied();
        let basis = if learned.is_some() { PromptBasis::Learned } else { PromptBasis::Usual };
        // A body can teach a ratio below one token a byte only by mistake.
        let ratio = learned.unwrap_or(BYTES_PER_TOKEN).max(0.25);
        ((request.body_bytes as f64 / ratio).ceil() as u64, basis)
    }

    fn output(&self, request: &Request<'_>, limit: &TokenLimit) -> (u64, OutputBasis) {
        let (output, basis) = match request.max_tokens {
            Some(most) => (most, OutputBasis::MaxTokens),
            None => match self.outputs_of(request).and_then(Outputs::percentile_95) {
                Some(usual) => (usual, OutputBasis::Learned),
                None => (COLD_START.min(limit.burst / 4).max(1), OutputBasis::ColdStart),
            },
        };
        let (output, basis) = match limit.output_cap {
            Some(cap) if cap < output => (cap, OutputBasis::OutputCap),
            _ => (output, basis),
        };
        (output.saturating_mul(request.answers.max(1)), basis)
    }

    fn outputs_of(&self, request: &Request<'_>) -> Option<&Outputs> {
        let key = (Arc::from(request.holder), Arc::from(request.model?));
        self.outputs.get(&key).filter(|outputs| outputs.tokens.len() >= ANSWERS_MIN)
    }
}

impl Outputs {
    fn push(&mut self, tokens: u64) {
        match self.tokens.get_mut(self.next) {
            Some(slot) => *slot = tokens,
            None => self.tokens.push(tokens),
        }
        self.next = (self.next + 1) % ANSWERS;
    }

    fn percentile_95(&self) -> Option<u64> {
        let mut sorted = self.tokens.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * 95).div_ceil(100).saturating_sub(1)).copied()
    }

    /// Rounded up.
    fn mean(&self) -> Option<u64> {
        let sum = self.tokens.iter().fold(0_u64, |sum, tokens| sum.saturating_add(*tokens));
        (!self.tokens.is_empty()).then(|| sum.div_ceil(self.tokens.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: TokenLimit = TokenLimit { per_minute: 60_000, burst: 60_000, debt: 60_000, output_cap: None };

    fn request(max_tokens: Option<u64>) -> Request<'static> {
        Request { model: Some("m"), holder: "user:alice", body_bytes: 400, counted: None, max_tokens, answers: 1 }
    }

    #[test]
    fn the_clients_own_bound_counts_up_to_the_cap() {
        let learned = Learned::default();
        let estimate = learned.estimate(&request(Some(500)), &LIMIT);
        assert_eq!(
            estimate,
            Estimate {
                prompt: 100,
                prompt_basis: PromptBasis::Usual,
                output: 500,
                output_basis: OutputBasis::MaxTokens,
                usual_output: 500,
            }
        );
        assert_eq!(estimate.total(), 600);
        let capped = TokenLimit { output_cap: Some(50), ..LIMIT };
        let estimate = learned.estimate(&Request { counted: Some(7), ..request(Some(500)) }, &capped);
        assert_eq!((estimate.total(), estimate.output_basis), (57, OutputBasis::OutputCap));
        assert_eq!(estimate.prompt_basis, PromptBasis::Counted);
    }

    #[test]
    fn every_answer_counts() {
        let learned = Learned::default();
        let three = Request { answers: 3, ..request(Some(500)) };
        assert_eq!(learned.estimate(&three, &LIMIT).output, 1_500);
        let capped = TokenLimit { output_cap: Some(50), ..LIMIT };
        assert_eq!(learned.estimate(&three, &capped).output, 150);
        assert_eq!(learned.estimate(&Request { answers: 3, ..request(None) }, &LIMIT).output, 3 * 1_024);
        let all = Request { answers: u64::MAX, ..request(Some(500)) };
        assert_eq!(learned.estimate(&all, &LIMIT).total(), u64::MAX);
    }

    #[test]
    fn a_first_request_fits_under_a_small_limit() {
        let small = TokenLimit { per_minute: 100, burst: 100, debt: 100, output_cap: None };
        let estimate = Learned::default().estimate(&request(None), &small);
        assert_eq!((estimate.output, estimate.output_basis), (25, OutputBasis::ColdStart));
        assert_eq!(Learned::default().estimate(&request(None), &LIMIT).output, 1024);
    }

    #[test]
    fn earlier_answers_teach() {
        let mut learned = Learned::default();
        let (alice, model): (Arc<str>, Arc<str>) = ("user:alice".into(), "m".into());
        for output in 1..=4 {
            learned.learn(&alice, &model, 400, Some(80), output);
        }
        assert_eq!(learned.estimate(&request(None), &LIMIT).output_basis, OutputBasis::ColdStart);
        for output in 5..=100 {
            learned.learn(&alice, &model, 400, Some(80), output);
        }
        let estimate = learned.estimate(&request(None), &LIMIT);
        assert_eq!((estimate.prompt, estimate.prompt_basis), (80, PromptBasis::Learned));
        assert_eq!((estimate.output, estimate.output_basis), (99, OutputBasis::Learned), "of the last 32");
        assert_eq!(estimate.usual_output, 85, "the mean of 69 to 100, rounded up");
        let bounded = learned.estimate(&Request { answers: 2, ..request(Some(500)) }, &LIMIT);
        assert_eq!((bounded.output, bounded.usual_output), (1_000, 170));
        assert_eq!(learned.estimate(&request(Some(30)), &LIMIT).usual_output, 30, "never more than is held");
        let bob = Request { holder: "user:bob", ..request(None) };
        assert_eq!(learned.estimate(&bob, &LIMIT).output_basis, OutputBasis::ColdStart);
    }
}
