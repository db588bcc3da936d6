//! Traffic mirroring: how many copies of requests may be sent, and how two answers differ.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{Cells, Claim, Learned, Request, Used};
use crate::config::limits::{Limit, LimitKey, OnExhausted, TokenLimit};
use crate::config::settings::Mirror;
use crate::words::worded;

/// In whose name copies are counted.
const HOLDER: &str = "shadow";

/// What copies of one route may take, and what they took. Outlives reloads.
#[derive(Debug, Default)]
pub struct Caps {
    cells: Cells,
    learned: Learned,
}

/// What a copy turned out to take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Took {
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// Of its request's body.
    pub body_bytes: u64,
    /// Both numbers are the upstream's own.
    pub reported: bool,
}

/// The caps of a shadow, as the limit that holds them.
#[must_use]
pub fn caps_of(shadow: &Mirror) -> Arc<Limit> {
    let per_minute = shadow.tokens_per_minute;
    Arc::new(Limit {
        name: Arc::from(HOLDER),
        key: LimitKey::Route,
        tokens: Some(TokenLimit { per_minute, burst: per_minute, debt: 0, output_cap: None }),
        requests_per_minute: None::<NonZeroU32>,
        concurrent: Some(u32::try_from(shadow.concurrent).unwrap_or(u32::MAX)),
        cost_per_day: None,
        cost_per_month: None,
        on_exhausted: OnExhausted::Finish,
    })
}

/// Whether a request is copied. `roll` is uniform over all of `u64`.
#[must_use]
pub fn is_drawn(share: f64, roll: u64) -> bool {
    // Strictly less, so that a share of 1 takes all: the quotient never reaches 1 in the 53 bits that count.
    const BELOW_ONE: f64 = (1_u64 << 53) as f64;
    ((roll >> 11) as f64) / BELOW_ONE < share
}

impl Caps {
    /// Reserves one copy's place, and the tokens that it may use; `None`: a cap is reached.
    pub fn take(&mut self, caps: &Arc<Limit>, request: &Request<'_>, now: Duration) -> Option<Claim> {
        let request = Request { holder: HOLDER, ..*request };
        let tokens = caps.tokens.as_ref().map_or(0, |tokens| self.learned.estimate(&request, tokens).total());
        let mut claims = [Claim { tokens, ..Claim::new(caps, HOLDER) }];
        self.cells.admit(&mut claims, now).ok()?;
        let [claim] = claims;
        Some(claim)
    }

    /// A copy has ended. One that was cancelled before anything of its usage was known is charged nothing.
    pub fn give_back(&mut self, claim: Claim, model: Option<&str>, took: Took, now: Duration) {
        if let (Some(model), Some(output), true) = (model, took.output, took.reported) {
            self.learned.learn(&claim.holder, &Arc::from(model), took.body_bytes, took.input, output);
        }
        let tokens = took.input.unwrap_or(0).saturating_add(took.output.unwrap_or(0));
        let _ = self.cells.report(&mut [claim], Used::default(), Used { tokens, cost: 0 }, true, now);
    }
}

/// What is compared of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// `None`: no head came.
    pub status: Option<u16>,
    /// It ended as it should: not broken off, not over its time, no error inside.
    pub whole: bool,
    /// From the attempt's beginning.
    pub first_token: Option<Duration>,
    pub output: Option<u64>,
    /// In the words of their dialects.
    pub finish_reasons: Vec<String>,
}

worded! {
    /// In what two answers differ.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Difference {
        Status = "status",
        /// The copy's came later than half as long again, and 100 ms.
        FirstToken = "first_token",
        /// One is more than twice as long, and 16 tokens longer.
        Length = "length",
        FinishReason = "finish_reason",
    }
}

worded! {
    /// What a comparison comes to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Verdict {
        Same = "same",
        Differs = "differs",
        /// The client had a whole answer, and the copy none.
        Failed = "failed",
    }
}

/// Compares the client's answer with the copy's. Answers of a model are never the same text: what is compared is what users
/// would notice.
#[must_use]
pub fn compare(client: &Side, copy: &Side) -> (Verdict, Vec<Difference>) {
    if client.whole && !copy.whole {
        return (Verdict::Failed, Vec::new());
    }
    let succeeded = |side: &Side| side.whole && side.status.is_some_and(|status| (200..300).contains(&status));
    let checks = [
        (Difference::Status, client.status != copy.status),
        (Difference::FirstToken, comes_later(client.first_token, copy.first_token)),
        (Difference::Length, is_other_length(client.output, copy.output)),
        (Difference::FinishReason, reasons(client) != reasons(copy)),
    ];
    // Of what failed there is nothing to compare but how.
    let compared = if succeeded(client) && succeeded(copy) { checks.len() } else { 1 };
    let differences: Vec<_> = checks.into_iter().take(compared).filter_map(|(what, is)| is.then_some(what)).collect();
    (if differences.is_empty() { Verdict::Same } else { Verdict::Differs }, differences)
}

fn comes_later(client: Option<Duration>, copy: Option<Duration>) -> bool {
    const SLACK: Duration = Duration::from_millis(100);
    client.zip(copy).is_some_and(|(client, copy)| copy > client.saturating_add(client / 2).saturating_add(SLACK))
}

fn is_other_length(client: Option<u64>, copy: Option<u64>) -> bool {
    const SLACK: u64 = 16;
    client.zip(copy).is_some_and(|(client, copy)| {
        let (short, long) = (client.min(copy), client.max(copy));
        long > short.saturating_mul(2) && long - short > SLACK
    })
}

/// Why generation ended, in one language for all dialects.
fn reasons(side: &Side) -> BTreeSet<String> {
    let word = |reason: &String| {
        let lower = reason.to_ascii_lowercase();
        let common = match lower.as_str() {
            "stop" | "end_turn" | "stop_sequence" | "completed" | "end" => "stop",
            "length" | "max_tokens" | "max_output_tokens" | "incomplete" => "length",
            "tool_calls" | "tool_use" | "tool-calls" | "function_call" => "tool_calls",
            "content_filter" | "content-filter" | "safety" | "refusal" | "prohibited_content" => "content_filter",
            other => other,
        };
        common.to_owned()
    };
    side.finish_reasons.iter().map(word).collect()
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
