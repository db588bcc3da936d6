//! Whole answers, as backends send them, read by the gauge.

mod calls;
mod closing;
mod dialects;
mod framing;
mod patterns;
mod pieces;
mod streams;

use super::*;
use crate::llm::sse::EVENT_LIMIT;
use crate::llm::{Background, ServerTimings, Usage, UsageSource};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn gauge(dialect: Dialect, framing: Framing) -> Gauge {
    gauge_with(dialect, framing, StreamRules::default())
}

fn gauge_with(dialect: Dialect, framing: Framing, rules: StreamRules) -> Gauge {
    Gauge::new(dialect, framing, Arc::new(rules), ms(1_000))
}

/// Feeds each part, one millisecond after the other from 1 ms on, and ends in order.
fn read(mut gauge: Gauge, parts: &[&str]) -> Reading {
    let mut now = Duration::ZERO;
    for part in parts {
        now += ms(1);
        gauge.feed(part.as_bytes(), now);
    }
    gauge.finish(StreamEnd::Clean, now);
    gauge.reading().clone()
}

/// First token, first answer, last token, in milliseconds.
fn milestones(reading: &Reading) -> [Option<u128>; 3] {
    [reading.first_token, reading.first_answer, reading.last_token].map(|at| at.map(|at| at.as_millis()))
}
