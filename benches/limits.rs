//! What a decision of the limits costs, in memory: one request's admission and settlement under one limit and under four.
//!
//! `cargo bench --no-default-features --bench limits`. The mark: under 2 µs a decision.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use streamgauge::config::limits::{Limit, LimitKey, OnExhausted, TokenLimit};
use streamgauge::policy::limits::{Cells, Claim, Used};

/// Holders that are known already: a map of one would be too kind.
const HOLDERS: usize = 10_000;

fn limit(name: &str) -> Arc<Limit> {
    let most = 1_000_000_000;
    Arc::new(Limit {
        name: name.into(),
        key: LimitKey::User,
        tokens: Some(TokenLimit { per_minute: most, burst: most, debt: most, output_cap: None }),
        requests_per_minute: NonZeroU32::new(u32::MAX),
        concurrent: Some(u32::MAX),
        cost_per_day: None,
        cost_per_month: None,
        on_exhausted: OnExhausted::Finish,
    })
}

fn decisions(c: &mut Criterion) {
    for (name, count) in [("one limit", 1), ("four limits", 4)] {
        let limits: Vec<Arc<Limit>> = (0..count).map(|number| limit(&format!("limit-{number}"))).collect();
        let holders: Vec<Arc<str>> = (0..HOLDERS).map(|number| format!("user:{number}").into()).collect();
        let (mut cells, mut now) = (Cells::default(), Duration::from_secs(1_800_000_000));
        let mut holders = holders.iter().cycle();
        c.bench_function(&format!("admit and settle, {name}"), |bencher| {
            bencher.iter(|| {
                now += Duration::from_micros(50);
                let Some(holder) = holders.next() else { return false };
                let claim = |limit: &Arc<Limit>| Claim {
                    limit: Arc::clone(limit),
                    holder: Arc::clone(holder),
                    tokens: 1_000,
                    cost: 0,
                    unforeseen: false,
                    runs: true,
                };
                let mut claims: Vec<Claim> = limits.iter().map(claim).collect();
                let admitted = black_box(cells.admit(&mut claims, now));
                assert!(admitted.is_ok());
                cells.report(&mut claims, Used::default(), Used { tokens: 400, cost: 0 }, true, now)
            });
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
