//! The `x-ratelimit-*` headers, by which OpenAI's clients see where they stand.

use std::time::Duration;

use pingora::http::ResponseHeader;

use crate::policy::limits::{Allowance, Standing};

const REQUESTS: [&str; 3] =
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];

const TOKENS: [&str; 3] = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];

/// Tells of both kinds of allowance, where there are any. An upstream's own headers tell of its limits towards us: where
/// we limit the caller, ours replace them.
pub(crate) fn insert(head: &mut ResponseHeader, standing: &Standing) -> pingora::Result<()> {
    for (names, allowance) in [(REQUESTS, standing.requests), (TOKENS, standing.tokens)] {
        let Some(Allowance { limit, remaining, reset }) = allowance else { continue };
        let [limit_name, remaining_name, reset_name] = names;
        head.insert_header(limit_name, limit.to_string())?;
        head.insert_header(remaining_name, remaining.to_string())?;
        head.insert_header(reset_name, words(reset))?;
    }
    Ok(())
}

/// A duration as OpenAI writes it: `120ms`, `6m0s`, `1h2m3s`.
fn words(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", time.as_millis());
    }
    // Rounded up: a client that waits so long finds what it was told.
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_written_as_openai_does() {
        let vectors =
            [(0, "0ms"), (120, "120ms"), (1_000, "1s"), (1_001, "2s"), (360_000, "6m0s"), (3_723_000, "1h2m3s")];
        for (ms, expected) in vectors {
            assert_eq!(words(Duration::from_millis(ms)), expected);
        }
    }
}
