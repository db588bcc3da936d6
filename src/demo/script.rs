//! What a request asks the backend to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::HeaderMap;

/// Most tokens of one answer.
const TOKENS_MAX: u64 = 1_000_000;

/// Longest wait and largest filling that can be asked for.
const WAIT_MAX_MS: u64 = 600_000;
const PAD_MAX: u64 = 1 << 20;

/// Most prefixes of prompts that can be kept.
const CACHE_MAX: u64 = 10_000;

/// All knobs by name, as query parameters; with `x-demo-` in front and `-` for `_`, as headers.
pub(super) const KNOBS: &str = "headers_ms, ttft_ms, gap_ms, tokens, per_frame, pad, status, fail_percent, retry_after, \
    error_at, cut_at, silent_at, pings, reasoning, tool, no_done, stamp, never, cache";

/// How an answer goes.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Wait before the head.
    pub(super) headers: Duration,
    /// Wait between the head and the first token.
    pub(super) first_token: Duration,
    /// Wait between two token frames.
    pub(super) gap: Duration,
    pub(super) tokens: u64,
    /// Tokens in one frame; at least 1.
    pub(super) per_frame: u64,
    /// Filling of each token, in bytes.
    pub(super) pad: usize,
    /// Answer with this status and no stream.
    pub(super) status: Option<u16>,
    /// Seconds of `Retry-After` beside it.
    pub(super) retry_after: Option<u64>,
    /// An error event in place of this token frame; 0 is the first.
    pub(super) error_at: Option<u64>,
    /// The connection breaks in place of this frame.
    pub(super) cut_at: Option<u64>,
    /// Silence for ever in place of this frame.
    pub(super) silent_at: Option<u64>,
    /// Comments before the first token.
    pub(super) pings: u64,
    /// Reasoning tokens before the answer.
    pub(super) reasoning: u64,
    /// Ends with a tool call.
    pub(super) tool: bool,
    /// Leaves the end marker out.
    pub(super) no_done: bool,
    /// Each token carries the monotonic clock, in nanoseconds.
    pub(super) stamp: bool,
    /// No answer at all.
    pub(super) never: bool,
    /// Prefixes of prompts that are kept, so that what they have in common with later ones is reported as cached; 0: none, and each prompt has 9 tokens.
    pub(super) cache: usize,
}

/// The knobs of a query; one without a value is 1.
fn knobs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "1")))
}

/// Looks over knobs that were typed.
///
/// # Errors
/// What is not a knob, or no number.
pub(super) fn check(typed: &str) -> Result<(), String> {
    for (name, value) in knobs(typed) {
        if !KNOBS.split(", ").any(|knob| knob == name) {
            return Err(format!("there is no knob `{name}`; there are {KNOBS}"));
        }
        if value.parse::<u64>().is_err() {
            return Err(format!("the knob `{name}` takes a whole number, as {name}=20"));
        }
    }
    Ok(())
}

/// True for so many of a hundred calls, spread evenly.
fn chance(percent: u64) -> bool {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    // The golden ratio leaves no gaps and makes no pattern that a caller could fall in step with.
    let call = CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (call >> 32).saturating_mul(100) >> 32 < percent
}

impl Script {
    /// Reads the knobs; headers win over the query, and that over the `defaults`. What cannot be read counts as not there.
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap, defaults: &str) -> Self {
        let knob = |name: &str| -> Option<u64> {
            let header = format!("x-demo-{}", name.replace('_', "-"));
            let from_header = headers.get(&header).and_then(|value| value.to_str().ok());
            let written = || knobs(query.unwrap_or("")).chain(knobs(defaults));
            let from_query = || written().find(|(key, _)| *key == name).map(|(_, value)| value);
            from_header.or_else(from_query)?.parse().ok()
        };
        let wait = |name: &str, default: u64| Duration::from_millis(knob(name).unwrap_or(default).min(WAIT_MAX_MS));
        Self {
            headers: wait("headers_ms", 0),
            first_token: wait("ttft_ms", 20),
            gap: wait("gap_ms", 10),
            tokens: knob("tokens").unwrap_or(12).min(TOKENS_MAX),
            per_frame: knob("per_frame").unwrap_or(1).max(1),
            pad: usize::try_from(knob("pad").unwrap_or(0).min(PAD_MAX)).unwrap_or(0),
            status: knob("status")
                .or_else(|| knob("fail_percent").filter(|percent| chance(*percent)).map(|_| 500))
                .and_then(|status| u16::try_from(status).ok())
                .filter(|status| (200..600).contains(status)),
            retry_after: knob("retry_after"),
            error_at: knob("error_at"),
            cut_at: knob("cut_at"),
            silent_at: knob("silent_at"),
            pings: knob("pings").unwrap_or(0).min(TOKENS_MAX),
            reasoning: knob("reasoning").unwrap_or(0).min(TOKENS_MAX),
            tool: knob("tool").is_some(),
            no_done: knob("no_done").is_some(),
            stamp: knob("stamp").is_some(),
            never: knob("never").is_some(),
            cache: usize::try_from(knob("cache").unwrap_or(0).min(CACHE_MAX)).unwrap_or(0),
        }
    }

    /// The text of token `number`.
    pub(super) fn token(&self, number: u64) -> String {
        const WORDS: [&str; 6] = ["water", " flows", " past", " the", " gauge", ","];
        let word = usize::try_from(number).ok().and_then(|number| WORDS.get(number % WORDS.len())).unwrap_or(&"water");
        let mut text = (*word).to_owned();
        if self.stamp {
            text.push_str(&format!(" @{}", monotonic_ns()));
        }
        text.extend(std::iter::repeat_n('.', self.pad));
        text
    }
}

/// CLOCK_MONOTONIC, which all processes of the machine share.
fn monotonic_ns() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or(0)).as_nanos()
}
