//! Metrics of traffic mirroring. No series of requests includes copies.

use std::time::Duration;

use super::labels::{ShadowResult, Side};
use super::*;
use crate::telemetry::shadow::ShadowRecord;

impl Metrics {
    /// A copy's answer was compared.
    pub(crate) fn shadowed(&self, record: &ShadowRecord) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (of, route) = (&self.families, known.route(&record.route));
        of.shadow.get((route, ShadowResult::Compared(record.verdict))).add(1);
        for difference in &record.differences {
            of.shadow_differences.get((route, *difference)).add(1);
        }
        // Pairs only: two distributions of other requests would compare nothing.
        if let (Some(client), Some(copy)) = (record.client.first_token, record.copy.first_token) {
            let observe =
                |side, time: Duration| of.shadow_first_token.get((route, side)).observe(time.as_secs_f64(), None);
            observe(Side::Primary, client);
            observe(Side::Shadow, copy);
        }
        if let (Some(client), Some(copy)) = (record.client.output, record.copy.output) {
            of.shadow_output_tokens.get((route, Side::Primary)).add(client.min(TOKENS_MAX));
            of.shadow_output_tokens.get((route, Side::Shadow)).add(copy.min(TOKENS_MAX));
        }
        if let Some(cost) = record.cost {
            of.shadow_cost.get((route,)).add(cost);
        }
    }

    /// A request was drawn to be copied, and no copy of it was made or compared.
    pub fn shadow_skipped(&self, route: &str) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        self.families.shadow.get((known.route(route), ShadowResult::Skipped)).add(1);
    }
}
