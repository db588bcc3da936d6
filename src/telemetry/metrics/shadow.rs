//! Metrics of traffic mirroring. No series of requests includes copies.

use std::time::Duration;

use super::*;
use crate::telemetry::shadow::ShadowRecord;

/// The label of copies that were not made, or not compared.
const SKIPPED: &str = "skipped";

impl Metrics {
    /// A copy's answer was compared.
    pub(crate) fn shadowed(&self, record: &ShadowRecord) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (of, route) = (&self.families, known.route(&record.route));
        of.shadow.get([route, record.verdict.as_str()]).add(1);
        for difference in &record.differences {
            of.shadow_differences.get([route, difference.as_str()]).add(1);
        }
        // Pairs only: two distributions of other requests would compare nothing.
        if let (Some(client), Some(copy)) = (record.client.first_token, record.copy.first_token) {
            let observe =
                |side, time: Duration| of.shadow_first_token.get([route, side]).observe(time.as_secs_f64(), None);
            observe("primary", client);
            observe("shadow", copy);
        }
        if let (Some(client), Some(copy)) = (record.client.output, record.copy.output) {
            of.shadow_output_tokens.get([route, "primary"]).add(client.min(TOKENS_MAX));
            of.shadow_output_tokens.get([route, "shadow"]).add(copy.min(TOKENS_MAX));
        }
        if let Some(cost) = record.cost {
            of.shadow_cost.get([route]).add(cost);
        }
    }

    /// A request was drawn to be copied, and no copy of it was made or compared.
    pub fn shadow_skipped(&self, route: &str) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        self.families.shadow.get([known.route(route), SKIPPED]).add(1);
    }
}
